"""Lower bounds of flip distances from any admissible multipliers, lowered by their own rounding.

Rounding model (Higham, section 3.1): with n = 2d + 4K + 32 terms and γ = dot_error(n), every sum
below is within γ times the sum of its absolute terms. Let A = Σ |λ_s| size_s, where size_s bounds
the norm of the rows whose difference makes constraint s, and C the same with offsets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.geometry.problems import FlipProblems
from fsboundary.geometry.rows import ConstraintRows
from fsboundary.tolerance import EPS, dot_error


def rounding_terms(problems: FlipProblems) -> float:
    """Return γ for the sums of this module."""
    return dot_error(2 * problems.z.shape[1] + 4 * problems.head.num_classes + 32)


def dual_bound(
    problems: FlipProblems, rows: ConstraintRows, lam: Tensor, at_z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return sqrt(max(0, 2 g(λ))) less its rounding (P,), and ``Mᵀλ`` (P,d).

    Parameters
    ----------
    lam : Tensor (P, K)
        Admissible multipliers, any.
    at_z : Tensor (P, K)
        ``M z + c``, as given by `rows`.
    """
    u = rows.adjoint(lam)
    size, offset_size = rows.sizes()
    weight = lam.abs()
    bound = _lowered(
        problems,
        u,
        torch.linalg.vecdot(lam, at_z),
        torch.linalg.vecdot(weight, size),
        torch.linalg.vecdot(weight, offset_size),
    )
    return bound, u


def tie_bound(problems: FlipProblems, multiplier: Tensor) -> Tensor:
    """Return the same bound (P,) from the tie's multiplier (P,) alone, all slacks at 0."""
    normal, offset = problems.tie_rows()
    value = torch.linalg.vecdot(normal, problems.z) + offset
    weight = multiplier.abs()
    return _lowered(
        problems,
        multiplier[:, None] * normal,
        multiplier * value,
        weight * torch.linalg.vector_norm(normal, dim=1),
        weight * offset.abs(),
    )


def _lowered(problems: FlipProblems, u: Tensor, at_z: Tensor, a: Tensor, c: Tensor) -> Tensor:
    """Return the dual bound less its rounding, from u = Mᵀλ and λᵀ(M z + c).

    With z' = clip(z + u) and δ = z' - z: g = ½|δ|² - u.δ - λᵀ(M z + c). Its rounding is at most
    γ (|δ|² + 2 A |δ| + A |z| + C) for the three sums, and 2 (γ (A + |z|))² because z' is itself
    rounded (g is the minimum of a 1-strongly convex function that z' nearly attains).
    """
    z = problems.z
    moved = problems.head.domain.clip(z + u) - z
    length = torch.linalg.vector_norm(moved, dim=1)
    start = torch.linalg.vector_norm(z, dim=1)
    gamma = rounding_terms(problems)
    value = 0.5 * length * length - torch.linalg.vecdot(u, moved) - at_z
    error = gamma * (length * length + 2 * a * length + a * start + c)
    error = error + 2 * (gamma * (a + start)).square()
    bound = (2 * (value - error)).clamp_min(0.0).sqrt() * (1 - 4 * EPS)
    # multipliers so large that the sums overflow prove nothing
    return torch.nan_to_num(bound, nan=0.0, posinf=0.0)


def reach_bound(problems: FlipProblems, rows: ConstraintRows, lam: Tensor, u: Tensor) -> Tensor:
    """Return a radius (P,) within which no boundary point lies: +inf, positive, or 0.

    Parameters
    ----------
    lam : Tensor (P, K)
        Admissible multipliers, any scale.
    u : Tensor (P, d)
        ``Mᵀ lam``, as given by `rows`.
    """
    constant = rows.values(torch.zeros_like(problems.z))
    return _reach(
        problems,
        u,
        rounding_terms(problems) * rows.absolute_adjoint(lam),
        torch.linalg.vecdot(lam, constant),
        torch.linalg.vecdot(lam.abs(), rows.sizes()[1]),
    )


def reach_bound_tie(problems: FlipProblems, multiplier: Tensor) -> Tensor:
    """Return the same radius (P,) from the tie's multiplier (P,) alone, all slacks at 0."""
    normal, offset = problems.tie_rows()
    u = multiplier[:, None] * normal
    slack = rounding_terms(problems) * u.abs()
    return _reach(problems, u, slack, multiplier * offset, (multiplier * offset).abs())


def _reach(
    problems: FlipProblems, u: Tensor, slack: Tensor, constant: Tensor, offset_size: Tensor
) -> Tensor:
    """Return the radius from u = Mᵀλ, its rounding per coordinate, λᵀc and its absolute terms.

    Every boundary point x satisfies ``u.x + λᵀc >= 0`` (design.md, "Unreachable target"). Per
    coordinate u_m x_m is at most a bounded part plus left_m |x_m - z_m|, where left_m is what
    remains of u_m in directions in which the domain is unbounded. With H the sum of the bounded
    parts and λᵀc, ``|x - z| >= -H / |left|``: +inf where left = 0 and H < 0, which proves that
    there is none. The rounding of u is added to `left` and to H, so that a sign which float64
    cannot tell counts as unbounded.
    """
    z, gamma = problems.z, rounding_terms(problems)
    low, high = problems.head.domain.limits(z)
    open_low, open_high = torch.isinf(low), torch.isinf(high)
    up = torch.where(open_high, (u + slack).clamp_min(0.0), 0.0)
    down = torch.where(open_low, (slack - u).clamp_min(0.0), 0.0)
    left = torch.maximum(up, down)
    low, high = torch.where(open_low, 0.0, low), torch.where(open_high, 0.0, high)
    # with one open side, x is |x - end| away from the closed end, and that is at most
    # |x - z| + |z - end|; with two open sides the row itself serves as the end
    end = torch.where(open_high, torch.where(open_low, z, low), high)
    one_sided = u * end + slack * end.abs() + left * (z - end).abs()
    widest = torch.maximum(low.abs(), high.abs())
    two_sided = torch.maximum(u * low, u * high) + slack * widest
    parts = torch.where(open_low | open_high, one_sided, two_sided)
    size = parts.abs().sum(dim=1) + offset_size
    total = parts.sum(dim=1) + constant + gamma * size
    length = torch.linalg.vector_norm(left, dim=1) * (1 + gamma)
    # an overflow (NaN or infinity) proves nothing
    proves = (total < 0) & torch.isfinite(total)
    return torch.where(proves, -total / length, 0.0)
