"""Lower bounds of distances from any admissible multipliers, lowered by their rounding.

Rounding model (Higham, section 3.1): with n = 2d + 4K + 32 terms and γ = dot_error(n), every sum
below is within γ times the sum of its absolute terms, plus γ TINY for products that underflow.
Let A = Σ |λ_s| size_s, where size_s bounds the norm of the rows whose difference makes constraint
s, and C the same with offsets.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.flips.constraints import ConstraintOperator
from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems
from fsboundary.geometry.norms import TINY, lengths


def _rounding_factor(problems: DualProblems) -> float:
    """Return γ for the sums in this module."""
    return dot_error(2 * problems.z.shape[1] + 4 * problems.head.num_classes + 32)


def dual_bound(
    problems: DualProblems,
    operator: ConstraintOperator,
    lam: Float64[Tensor, "P K"],
    at_z: Float64[Tensor, "P K"],
) -> tuple[Float64[Tensor, " P"], Float64[Tensor, "P d"]]:
    """Return sqrt(max(0, 2 g(λ))) less its rounding (P,), and ``Mᵀλ`` (P,d).

    Parameters
    ----------
    problems : DualProblems
    operator : ConstraintOperator
    lam : Tensor (P, K)
        Any admissible multipliers.
    at_z : Tensor (P, K)
        ``M z + c``, as given by `operator`.
    """
    u = operator.adjoint(lam)
    size, offset_size = operator.sizes()
    weight = lam.abs()
    bound = _lowered(
        problems,
        u,
        torch.linalg.vecdot(lam, at_z),
        torch.linalg.vecdot(weight, size),
        torch.linalg.vecdot(weight, offset_size + TINY),
    )
    return bound, u


def tie_bound(problems: FlipProblems, multiplier: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
    """Return the same bound (P,) from only the tie's multiplier (P,), all slacks at 0."""
    normal, offset = problems.tie_rows()
    value = torch.linalg.vecdot(normal, problems.z) + offset
    weight = multiplier.abs()
    return _lowered(
        problems,
        multiplier[:, None] * normal,
        multiplier * value,
        weight * lengths(normal),
        weight * (offset.abs() + TINY),
    )


def _lowered(problems: DualProblems, u: Tensor, at_z: Tensor, a: Tensor, c: Tensor) -> Tensor:
    """Return the dual bound less its rounding, from u = Mᵀλ and λᵀ(M z + c).

    With z' = clip(z + u) and δ = z' - z: g = ½|δ|² - u.δ - λᵀ(M z + c). Its rounding is at most
    γ (|δ|² + 2 A |δ| + A |z| + C) for the three sums, and 2 (γ (A + |z|))² because z' is itself
    rounded (g is the minimum of a 1-strongly convex function that z' nearly attains).
    """
    z = problems.z
    moved = problems.head.domain.clip(z + u) - z
    length, start = lengths(moved), lengths(z)
    gamma = _rounding_factor(problems)
    value = 0.5 * length * length - torch.linalg.vecdot(u, moved) - at_z
    error = gamma * (length * length + 2 * a * length + a * start + c + 4 * TINY)
    error = error + 2 * (gamma * (a + start)).square()
    bound = (2 * (value - error)).clamp_min(0.0).sqrt() * (1 - 4 * EPS)
    # multipliers so large that the sums overflow prove nothing
    return torch.nan_to_num(bound, nan=0.0, posinf=0.0)


def dual_exclusion_radius(
    problems: DualProblems,
    operator: ConstraintOperator,
    lam: Float64[Tensor, "P K"],
    u: Float64[Tensor, "P d"],
) -> Float64[Tensor, " P"]:
    """Return a radius (P,) within which no feasible point lies: +inf, positive, or 0.

    Parameters
    ----------
    problems : DualProblems
    operator : ConstraintOperator
    lam : Tensor (P, K)
        Admissible multipliers of any scale.
    u : Tensor (P, d)
        ``Mᵀ lam``, as given by `operator`.
    """
    constant = operator.values(torch.zeros_like(problems.z))
    # which coordinates occur at all: the large factor keeps subnormal weights above 0
    enters = operator.absolute_adjoint(1e300 * (lam != 0).to(lam)) > 0
    return _exclusion_radius(
        problems,
        u,
        operator.absolute_adjoint(lam) + TINY * enters.to(lam),
        torch.linalg.vecdot(lam, constant),
        torch.linalg.vecdot(lam.abs(), operator.sizes()[1]),
    )


def tie_exclusion_radius(
    problems: FlipProblems, multiplier: Float64[Tensor, " P"]
) -> Float64[Tensor, " P"]:
    """Return the same radius (P,) from only the tie's multiplier (P,), all slacks at 0."""
    normal, offset = problems.tie_rows()
    u = multiplier[:, None] * normal
    size = u.abs() + TINY * ((normal != 0) & (multiplier != 0)[:, None]).to(u)
    return _exclusion_radius(problems, u, size, multiplier * offset, (multiplier * offset).abs())


def _exclusion_radius(
    problems: DualProblems, u: Tensor, size: Tensor, constant: Tensor, offset_size: Tensor
) -> Tensor:
    """Return the radius from u = Mᵀλ, λᵀc and the absolute terms of both."""
    low, high = problems.head.domain.limits(problems.z)
    gamma = _rounding_factor(problems)
    return box_exclusion_radius(problems.z, low, high, gamma, u, size, constant, offset_size)


def box_exclusion_radius(
    z: Float64[Tensor, "P d"],
    low: Float64[Tensor, " d"],
    high: Float64[Tensor, " d"],
    gamma: float,
    u: Float64[Tensor, "P d"],
    size: Float64[Tensor, "P d"],
    constant: Float64[Tensor, " P"],
    offset_size: Float64[Tensor, " P"],
) -> Float64[Tensor, " P"]:
    """Return a radius (P,) about `z` (P,d) within which no x of a box has ``u.x + constant >= 0``.

    `z` must lie in the box. The radius is +inf, positive, or 0, which proves nothing. `size` (P,d)
    and `offset_size` (P,) hold the absolute terms of the sums u (P,d) and `constant` (P,), each of
    which is within `gamma` times them.

    Every feasible point x satisfies ``u.x + λᵀc >= 0`` (design.md, "Unreachable target"). Let
    left_m be the part of u_m in directions in which the domain is unbounded. Per coordinate
    u_m x_m is at most a bounded part, the maximum over the limits (over z_m where there is none),
    plus left_m |x_m - z_m|. With H the sum of the bounded parts and λᵀc,
    ``|x - z| >= -H / |left|``: +inf where left = 0 and H < 0, which proves that there is none.
    The rounding of u is added to `left` and to H, so that a sign which float64 cannot decide
    counts as unbounded.
    """
    slack = gamma * size
    open_low, open_high = torch.isinf(low), torch.isinf(high)
    up = torch.where(open_high, (u + slack).clamp_min(0.0), 0.0)
    down = torch.where(open_low, (slack - u).clamp_min(0.0), 0.0)
    length = lengths(torch.maximum(up, down))
    low, high = torch.where(open_low, z, low), torch.where(open_high, z, high)
    grown = slack + gamma * (u.abs() + slack)
    parts = torch.maximum(u * low + grown * low.abs(), u * high + grown * high.abs())
    absolute = parts.abs().sum(dim=1) + offset_size + 4 * TINY
    total = parts.sum(dim=1) + constant + gamma * absolute
    # an overflow (NaN or infinity) proves nothing
    proves = (total < 0) & torch.isfinite(total) & torch.isfinite(length)
    radius = -total / (length * (1 + gamma) + gamma * TINY)
    radius = radius.clamp_max(torch.finfo(z.dtype).max)
    radius = torch.where(length == 0, torch.inf, radius)
    return torch.where(proves, radius, 0.0)
