"""Guaranteed Linf balls (design.md, "Guaranteed ball").

With a = w_i - w_k and margin m, the largest r that keeps class i above k solves
Σ_{a>0} a min(r, z - lo) + Σ_{a<0} |a| min(r, hi - z) = m. The left side is concave, increasing
and piecewise linear, so Newton's method from below never passes the root: every iterate is a
valid radius.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.flips.nearest import Nearest, margin_bounds, pruned_minimum
from fsboundary.geometry.flips.scalar_dual import MAX_PIECES
from fsboundary.geometry.lengths import TINY


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
