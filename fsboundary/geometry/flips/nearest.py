"""Which class is nearest, and a radius within which no other class begins.

The nearest boundary of a row is the nearest tie of two logits: on the way to it no third class
can have come first, or its own tie would have been nearer. Closed-form bounds decide which ties
need solving: most rows need one or two, however many classes there are.

Guaranteed Linf balls (design.md, "Guaranteed ball").

With a = w_i - w_k and margin m, the largest r that keeps class i above k solves
Σ_{a>0} a min(r, z - lo) + Σ_{a<0} |a| min(r, hi - z) = m. The left side is concave, increasing
and piecewise linear, so Newton's method from below never passes the root: every iterate is a
valid radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.bounds import reach_bound_tie, tie_bound
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import MAX_PIECES, solve_tie
from fsboundary.geometry.norms import TINY, lengths, pair_norms

Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rows (P,), classes (P,) -> (distance or estimate, certified lower bound), both (P,)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """Nearest class (B,) and a certified radius (B,) within which no other class begins.

    Where no other class can be reached, ``radius`` is +inf and ``target`` is the class with the
    smallest closed-form bound.
    """

    target: Tensor
    radius: Tensor


def margin_bounds(
    head: LinearHead, z: Tensor, source: Tensor, p: float, *, keeps: bool
) -> tuple[Tensor, Tensor]:
    """Return margins over dual norms (B,K): plain, and lowered by rounding; +inf at the source.

    ``(l_i - l_k) / |w_i - w_k|_p`` bounds the distance to a tie in the norm dual to p on any
    domain. Equal rows: 0 where the biases are equal too, else +inf (they never tie); with `keeps`,
    as for :func:`nearest_classes`, +inf only where the source's bias is the larger.
    """
    norms = pair_norms(head, p)[source]
    logits = torch.addmm(head.bias, z, head.weight.T)
    margin = logits.gather(1, source[:, None]) - logits
    size = lengths(head.weight)
    gamma = dot_error(head.num_features + 8)
    error = gamma * ((size[source][:, None] + size) * lengths(z)[:, None] + TINY)
    error = error + gamma * (head.bias[source].abs()[:, None] + head.bias.abs())
    equal = norms == 0
    # the source may have the lower bias where both logits round to the same number
    b, own_b = head.bias, head.bias[source][:, None]
    apart = torch.where((own_b > b) if keeps else (own_b != b), torch.inf, 0.0).to(z)
    safe = torch.where(equal, 1.0, norms)
    # a margin that overflowed proves nothing, and neither does a subnormal quotient
    margin = torch.where(torch.isfinite(margin), margin, 0.0)
    largest = torch.finfo(z.dtype).max
    plain = torch.where(equal, apart, (margin.clamp_min(0.0) / safe).clamp_max(largest))
    # the norm itself is rounded by at most gamma
    lowered = (margin - error).clamp_min(0.0) / (safe * (1 + gamma) + gamma * TINY)
    lowered = torch.where(lowered >= TINY, lowered, 0.0).clamp_max(largest)
    lowered = torch.where(equal, apart, lowered)
    own = source[:, None]
    return plain.scatter_(1, own, torch.inf), lowered.scatter_(1, own, torch.inf)


def pruned_minimum(plain: Tensor, lowered: Tensor, source: Tensor, solve: Solve) -> Nearest:
    """Return the smallest distance over classes, solving only those that could be smallest."""
    order = plain.argsort(dim=1, stable=True)
    sorted_bounds = plain.gather(1, order)
    best = torch.full_like(plain[:, 0], torch.inf)
    # where no class can be reached at all, every bound is +inf, the source's own too
    target = torch.where(order[:, 0] == source, order[:, 1], order[:, 0])
    proved = lowered.clone()
    for place in range(plain.shape[1] - 1):
        bound = sorted_bounds[:, place]
        rows = ((bound < best) & torch.isfinite(bound)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        classes = order[rows, place]
        value, certified = solve(rows, classes)
        proved[rows, classes] = torch.maximum(proved[rows, classes], certified)
        nearer = value < best[rows]
        best[rows] = torch.where(nearer, value, best[rows])
        target[rows] = torch.where(nearer, classes, target[rows])
    return Nearest(target=target, radius=proved.amin(dim=1))


def nearest_classes(head: LinearHead, z: Tensor, source: Tensor, *, keeps: bool) -> Nearest:
    """Return the nearest class in the domain of `head` and a certified radius, Euclidean.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64, inside the domain
    source : Tensor (B,)
    keeps : bool
        Within the radius no logit is above the source's, as a guaranteed ball needs; else none
        ties with it. They differ where logits agree within rounding and the row lies, exactly, on
        the other class's side: the tie is then at a distance, and the other class is not.
    """
    targets, radii = [], []
    for part in chunks(len(z), chunk_rows(max(head.num_features, head.num_classes))):
        found = _nearest_chunk(head, z[part], source[part], keeps)
        targets.append(found.target)
        radii.append(found.radius)
    if not targets:
        return Nearest(target=source.clone(), radius=z.new_zeros(0))
    return Nearest(target=torch.cat(targets), radius=torch.cat(radii))


def _nearest_chunk(head: LinearHead, z: Tensor, source: Tensor, keeps: bool) -> Nearest:
    plain, lowered = margin_bounds(head, z, source, 2.0, keeps=keeps)

    def solve(rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        problems = FlipProblems(head=head, z=z[rows], source=source[rows], target=classes)
        multiplier, stuck = solve_tie(problems)
        normal, _ = problems.tie_rows()
        end = head.domain.clip(problems.z + multiplier[:, None] * normal)
        distance = lengths(end - problems.z)
        bound = tie_bound(problems, multiplier)
        distance[stuck] = torch.inf
        # far away the dual value drowns in rounding and the reach does not
        poor = bound < 0.5 * distance
        if bool(poor.any()):
            reach = reach_bound_tie(problems.take(poor), multiplier[poor])
            bound[poor] = torch.maximum(bound[poor], reach)
        if keeps:
            bound = torch.where(multiplier > 0, 0.0, bound)
        return distance, bound

    return pruned_minimum(plain, lowered, source, solve)


def linf_radii(head: LinearHead, z: Tensor, source: Tensor) -> Nearest:
    """Return the class that limits each Linf ball and the certified radius, (B,) each.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64, inside the domain
    source : Tensor (B,)
    """
    targets, radii = [], []
    for part in chunks(len(z), chunk_rows(max(head.num_features, head.num_classes))):
        found = _chunk(head, z[part], source[part])
        targets.append(found.target)
        radii.append(found.radius)
    if not targets:
        return Nearest(target=source.clone(), radius=z.new_zeros(0))
    return Nearest(target=torch.cat(targets), radius=torch.cat(radii))


def _chunk(head: LinearHead, z: Tensor, source: Tensor) -> Nearest:
    plain, lowered = margin_bounds(head, z, source, 1.0, keeps=True)
    if head.domain.kind == "unbounded":
        order = plain.argmin(dim=1)
        return Nearest(target=order, radius=lowered.amin(dim=1))

    def solve(rows: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        radius = _solve(head, z[rows], source[rows], classes)
        return radius, radius

    return pruned_minimum(plain, lowered, source, solve)


def _solve(head: LinearHead, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return a radius (P,) that is certainly safe against `target`; +inf where none is unsafe."""
    normal = head.weight[source] - head.weight[target]
    offset = head.bias[source] - head.bias[target]
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
        # every coordinate is at its limit and the class still holds: no radius is unsafe. With
        # goal 0 the margin itself may be 0, or too small to tell
        safe = torch.where(under & (slope == 0) & (goal > 0), torch.inf, safe)
        before = torch.linalg.vecdot(size, (room >= radius[:, None]).to(z.dtype))
        step = (goal - fall) / torch.where(under, slope, before)
        # a root passed by rounding is approached again from below
        step = torch.where(under, step, step - 4 * EPS * radius)
        settled = torch.isinf(safe) | (goal == 0) | (under & (step <= 32 * EPS * radius))
        if bool(settled.all()):
            break
        radius = torch.where(settled, radius, radius + step)
    return safe
