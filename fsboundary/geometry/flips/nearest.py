"""Nearest classes, and certified Euclidean and Linf radii that no other class enters.

The nearest boundary of a row is the nearest tie of two logits: no third class can come first on
the way to it, because its tie would be nearer. Closed-form bounds decide which ties need to be
solved: most rows need one or two, regardless of the number of classes.

Linf balls (design.md, "Guaranteed ball"): with a = w_i - w_k and margin m, the largest r that keeps
class i above k solves
Σ_{a>0} a min(r, z - lo) + Σ_{a<0} |a| min(r, hi - z) = m. The left side is concave, increasing
and piecewise linear, so Newton's method from below never passes the root: every iterate is a
valid radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import map_chunks
from fsboundary.geometry.flips.bounds import tie_bound, tie_exclusion_radius
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import MAX_PIECES, solve_scalar_dual
from fsboundary.geometry.norms import TINY, lengths, pair_norms

PairSolver = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rows (P,), classes (P,) -> (distance or estimate, certified lower bound), both (P,)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """Nearest class (B,) and a certified radius (B,) that no other class enters.

    Where no other class can be reached, ``radius`` is +inf and ``target`` is the class with the
    smallest closed-form bound.
    """

    target: Tensor
    radius: Tensor


def tie_distance_bounds(
    head: LinearHead,
    z: Float64[Tensor, "B d"],
    source: Int[Tensor, " B"],
    p: float,
    *,
    allow_ties: bool,
) -> tuple[Float64[Tensor, "B K"], Float64[Tensor, "B K"]]:
    """Return margins over dual norms (B,K): plain, and lowered by rounding; +inf at the source.

    ``(l_i - l_k) / |w_i - w_k|_p`` bounds the distance to a tie in the norm dual to p on any
    domain. Equal rows: 0 where the biases are equal too, else +inf (they never tie); with
    `allow_ties`, as in :func:`nearest_classes`, +inf only where the source's bias is the larger.
    """
    norms = pair_norms(head, p)[source]
    logits = torch.addmm(head._bias, z, head._weight.T)
    margin = logits.gather(1, source[:, None]) - logits
    size = lengths(head._weight)
    gamma = dot_error(head.num_features + 8)
    error = gamma * ((size[source][:, None] + size) * lengths(z)[:, None] + TINY)
    error = error + gamma * (head._bias[source].abs()[:, None] + head._bias.abs())
    equal = norms == 0
    # the source may have the lower bias where both logits round to the same number
    b, source_bias = head._bias, head._bias[source][:, None]
    never_ties = (source_bias > b) if allow_ties else (source_bias != b)
    apart = torch.where(never_ties, torch.inf, 0.0).to(z)
    safe = torch.where(equal, 1.0, norms)
    # a margin that overflowed proves nothing, and neither does a subnormal quotient
    margin = torch.where(torch.isfinite(margin), margin, 0.0)
    largest = torch.finfo(z.dtype).max
    plain = torch.where(equal, apart, (margin.clamp_min(0.0) / safe).clamp_max(largest))
    # the norm itself is rounded by at most gamma
    lowered = (margin - error).clamp_min(0.0) / (safe * (1 + gamma) + gamma * TINY)
    lowered = torch.where(lowered >= TINY, lowered, 0.0).clamp_max(largest)
    lowered = torch.where(equal, apart, lowered)
    index = source[:, None]
    return plain.scatter_(1, index, torch.inf), lowered.scatter_(1, index, torch.inf)


def _pruned_minimum(plain: Tensor, lowered: Tensor, source: Tensor, solve: PairSolver) -> Nearest:
    """Return the smallest distance over classes, solving only those that could be smallest."""
    order = plain.argsort(dim=1, stable=True)
    sorted_bounds = plain.gather(1, order)
    best = torch.full_like(plain[:, 0], torch.inf)
    # where no class can be reached, every bound is +inf, that of the source too
    target = torch.where(order[:, 0] == source, order[:, 1], order[:, 0])
    certified = lowered.clone()
    for rank in range(plain.shape[1] - 1):
        bound = sorted_bounds[:, rank]
        rows = ((bound < best) & torch.isfinite(bound)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        classes = order[rows, rank]
        value, proved = solve(rows, classes)
        certified[rows, classes] = torch.maximum(certified[rows, classes], proved)
        nearer = value < best[rows]
        best[rows] = torch.where(nearer, value, best[rows])
        target[rows] = torch.where(nearer, classes, target[rows])
    return Nearest(target=target, radius=certified.amin(dim=1))


def nearest_classes(
    head: LinearHead,
    z: Float64[Tensor, "B d"],
    source: Int[Tensor, " B"],
    *,
    allow_ties: bool,
) -> Nearest:
    """Return the nearest class in the domain of `head` and a certified Euclidean radius.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64, inside the domain
    source : Tensor (B,)
    allow_ties : bool
        Whether other logits may equal the source's within the radius, as in a guaranteed ball, as
        long as none is above it; else none ties with it. The two differ where logits agree within
        rounding and the row lies, exactly, on the other class's side: the tie is then at a
        distance, and the other class is not.
    """

    def solve(part: slice) -> Nearest:
        return _nearest_chunk(head, z[part], source[part], allow_ties)

    return _join(map_chunks(solve, len(z), max(head.num_features, head.num_classes), z.device), z)


def _join(parts: list[Nearest], z: Tensor) -> Nearest:
    if not parts:
        return Nearest(target=z.new_zeros(0, dtype=torch.int64), radius=z.new_zeros(0))
    return Nearest(
        target=torch.cat([part.target for part in parts]),
        radius=torch.cat([part.radius for part in parts]),
    )


def _nearest_chunk(head: LinearHead, z: Tensor, source: Tensor, allow_ties: bool) -> Nearest:
    plain, lowered = tie_distance_bounds(head, z, source, 2.0, allow_ties=allow_ties)

    def solve(rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        problems = FlipProblems(head=head, z=z[rows], source=source[rows], target=classes)
        multiplier, unreachable = solve_scalar_dual(problems)
        normal, _ = problems.tie_rows()
        end = head.domain.clip(problems.z + multiplier[:, None] * normal)
        distance = lengths(end - problems.z)
        bound = tie_bound(problems, multiplier)
        distance[unreachable] = torch.inf
        # far away the dual value is lost in rounding and the exclusion radius is not
        poor = bound < 0.5 * distance
        if bool(poor.any()):
            radius = tie_exclusion_radius(problems.take(poor), multiplier[poor])
            bound[poor] = torch.maximum(bound[poor], radius)
        if allow_ties:
            bound = torch.where(multiplier > 0, 0.0, bound)
        return distance, bound

    return _pruned_minimum(plain, lowered, source, solve)


def linf_radii(head: LinearHead, z: Float64[Tensor, "B d"], source: Int[Tensor, " B"]) -> Nearest:
    """Return the class that limits each Linf ball and the certified radius, (B,) each.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64, inside the domain
    source : Tensor (B,)
    """

    def solve(part: slice) -> Nearest:
        return _linf_chunk(head, z[part], source[part])

    return _join(map_chunks(solve, len(z), max(head.num_features, head.num_classes), z.device), z)


def _linf_chunk(head: LinearHead, z: Tensor, source: Tensor) -> Nearest:
    plain, lowered = tie_distance_bounds(head, z, source, 1.0, allow_ties=True)
    if head.domain.kind == "unbounded":
        order = plain.argmin(dim=1)
        return Nearest(target=order, radius=lowered.amin(dim=1))

    def solve(rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        radius = _linf_radius(head, z[rows], source[rows], classes)
        return radius, radius

    return _pruned_minimum(plain, lowered, source, solve)


def _linf_radius(head: LinearHead, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return a radius (P,) that is proved safe against `target`; +inf where every radius is."""
    normal = head._weight[source] - head._weight[target]
    offset = head._bias[source] - head._bias[target]
    low, high = head.domain.limits(z)
    size = normal.abs()
    # how far each coordinate can move in the direction that lowers the margin
    room = torch.where(normal > 0, z - low, high - z)
    room = torch.where(size > 0, room, 0.0)
    gamma = dot_error(head.num_features + 8)
    margin = torch.linalg.vecdot(normal, z) + offset
    error = gamma * (torch.linalg.vecdot(size, z.abs()) + offset.abs() + 4 * TINY)
    goal = ((margin - error) * (1 - 2 * gamma)).clamp_min(0.0)
    # a margin that overflowed proves nothing
    goal = torch.where(torch.isfinite(margin), goal, 0.0)
    safe = torch.zeros_like(goal)
    radius = (goal / size.sum(dim=1).clamp_min(TINY)).clamp_max(torch.finfo(z.dtype).max)
    for _ in range(MAX_PIECES):
        fall = torch.linalg.vecdot(size, torch.minimum(room, radius[:, None]))
        under = fall <= goal
        safe = torch.where(under, torch.maximum(safe, radius), safe)
        beyond = room > radius[:, None]
        slope = torch.linalg.vecdot(size, beyond.to(z.dtype))
        # every coordinate is at its limit and the class stays the same: every radius is safe. With
        # goal 0 the margin itself may be 0, or too small to decide
        safe = torch.where(under & (slope == 0) & (goal > 0), torch.inf, safe)
        before = torch.linalg.vecdot(size, (room >= radius[:, None]).to(z.dtype))
        step = (goal - fall) / torch.where(under, slope, before)
        # a root that rounding passed is approached again from below
        step = torch.where(under, step, step - 4 * EPS * radius)
        settled = torch.isinf(safe) | (goal == 0) | (under & (step <= 32 * EPS * radius))
        if bool(settled.all()):
            break
        radius = torch.where(settled, radius, radius + step)
    return safe
