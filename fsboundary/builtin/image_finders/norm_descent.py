"""Across the boundary and back: a descent that keeps direction and length of the change apart.

Just inside the nearest image across: a descent by steps that are large at first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.search_state import ImageSearch

_LAST = 0.01
"""Gradient steps fall to this share of their first length."""


def descend(search: ImageSearch, steps: int, *, radius: float, stride: float, rate: float) -> None:
    """Walk for `steps` gradients from the clean images; the search keeps the nearest across.

    After J. Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses", CVPR 2019: each change is turned by a gradient step and set
    to a length of its own, which shrinks where the image is across and grows where it is not.

    Parameters
    ----------
    radius : float
        First length of the change, pixel units.
    stride : float
        First length of a gradient step, pixel units; falls as :func:`cooled`.
    rate : float
        Share by which the length changes in a step.
    """
    change, rows = torch.zeros_like(search.clean), search.all_rows
    length = torch.full_like(search.distance, radius)
    for step in range(steps):
        if len(rows) == 0:
            return
        seen = look(search, rows, change)
        rows = seen.rows
        if step:
            smaller = torch.minimum(length[rows] * (1 - rate), search.distance[rows])
            length[rows] = torch.where(seen.across, smaller, length[rows] * (1 + rate))
        walk = stride * cooled(step, steps)
        change[rows] = turned(search, seen, walk, length[rows])


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Images ``x`` (R,n) of ``rows`` (R,) where the gap has a direction to fall in.

    ``gap`` (R,), ``gradient`` (R,n) of the smooth gap, and whether they are ``across`` (R,).
    """

    rows: Tensor
    x: Tensor
    gap: Tensor
    gradient: Tensor
    across: Tensor


def look(search: ImageSearch, rows: Tensor, change: Tensor) -> Seen:
    """Take one gradient at the clean images of `rows` plus `change` (B,n); the search keeps them.

    Rows where a flat or broken model gives no direction are left out.
    """
    x = search.clean[rows] + change[rows]
    slope = search.slope(rows, x, smooth=True)
    search.keep(rows, x, slope.gap, slope.slack)
    size = torch.linalg.vecdot(slope.gradient, search.steepest(slope.gradient))
    alive = (size > 0) & torch.isfinite(size)
    return Seen(
        rows=rows[alive],
        x=x[alive],
        gap=slope.gap[alive],
        gradient=slope.gradient[alive],
        across=((slope.gap <= 0) & (slope.slack >= 0))[alive],
    )


def cooled(step: int, steps: int) -> float:
    """Return the share of its first length that a gradient step has: a cosine to a hundredth."""
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * step / steps)) / 2


def turned(search: ImageSearch, seen: Seen, walk: Tensor | float, length: Tensor) -> Tensor:
    """Return the changes (R,n) of images seen, turned by a step and set to `length` (R,).

    The step goes `walk` pixel units, one number or one a row, in the steepest direction.
    """
    clean, x = search.clean[seen.rows], seen.x
    size = torch.as_tensor(walk, dtype=x.dtype, device=x.device).reshape(-1, 1)
    moved = x - clean - size * search.steepest(seen.gradient)
    size = search.length(moved).clamp_min(torch.finfo(x.dtype).tiny)
    return (clean + moved * (length / size)[:, None]).clamp(*search.box) - clean


_CUT = 0.8
"""One cut shortens a change to this share at most: a linearisation is not trusted farther."""


def descend_inside(
    search: ImageSearch,
    steps: int,
    change: Tensor,
    *,
    radius: float,
    stride: float,
    shrink: float,
    grow: float,
) -> None:
    """Walk for `steps` gradients an image; the search keeps the nearest images across.

    As :func:`descend`, with three differences. A change is never longer than the shortest that
    is across, so that all gradients are spent where something nearer may be. An image that is
    across is cut back along its ray to where the linearised gap is 0, by one pass. And steps are
    told in lengths of the change, several at first: from far away on the sphere other parts of
    the boundary show, so that it pays to begin again.

    Parameters
    ----------
    change : Tensor (B, n)
        What to add to the clean images first.
    radius : float
        First length of the change where nothing is known to be across, pixel units.
    stride : float
        First length of a gradient step, in lengths of the change; falls as :func:`cooled`.
    shrink, grow : float
        Share by which the length falls where the image is across, and grows where it is not.
    """
    change, rows = change.clone(), search.all_rows
    length = search.distance.clamp_max(radius)
    for step in range(steps):
        if len(rows) == 0:
            return
        seen = look(search, rows, change)
        rows = seen.rows
        _cut(search, seen)
        factor = torch.where(seen.across, 1 - shrink, 1 + grow)
        length[rows] = torch.minimum(length[rows] * factor, search.distance[rows])
        walk = stride * cooled(step, steps) * length[rows]
        change[rows] = turned(search, seen, walk, length[rows])


def _cut(search: ImageSearch, seen: Seen) -> None:
    """Look at the images where the rays to those across seem to cross."""
    across = seen.across.nonzero()[:, 0]
    if len(across) == 0:
        return
    rows = seen.rows[across]
    clean = search.clean[rows]
    ray = seen.x[across] - clean
    rate = torch.linalg.vecdot(seen.gradient[across], ray)
    share = torch.where(rate < 0, 1 - seen.gap[across] / rate, 1.0).clamp(_CUT, 1.0)
    nearer = clean + share[:, None] * ray
    gap, slack = search.gaps(rows, search.logits(rows, nearer))
    search.keep(rows, nearer, gap, slack)
