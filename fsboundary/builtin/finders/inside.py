"""Just inside the nearest image across: a descent by steps that are large at first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fsboundary.builtin.finders.descent import turned
from fsboundary.builtin.finders.image_search import ImageSearch

_LAST = 0.01
"""Steps fall to this share of their first length, as in the descent of DDN."""

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
        First length of a gradient step, in lengths of the change; falls to a hundredth.
    shrink, grow : float
        Share by which the length falls where the image is across, and grows where it is not.
    """
    change, rows = change.clone(), search.all_rows
    length = search.distance.clamp_max(radius)
    for step in range(steps):
        if len(rows) == 0:
            return
        x = search.clean[rows] + change[rows]
        slope = search.slope(rows, x, smooth=True)
        search.keep(rows, x, slope.gap, slope.slack)
        size = torch.linalg.vecdot(slope.gradient, search.steepest(slope.gradient))
        # a flat or broken model gives no direction
        alive = (size > 0) & torch.isfinite(size)
        across = (slope.gap <= 0) & (slope.slack >= 0) & alive
        _cut(search, rows[across], x[across], slope.gap[across], slope.gradient[across])
        factor = torch.where(across, 1 - shrink, 1 + grow)
        length[rows] = torch.minimum(length[rows] * factor, search.distance[rows])
        rows, x, gradient = rows[alive], x[alive], slope.gradient[alive]
        walk = stride * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * step / steps)) / 2)
        change[rows] = turned(search, rows, x, gradient, walk * length[rows], length[rows])


def _cut(search: ImageSearch, rows: Tensor, x: Tensor, gap: Tensor, gradient: Tensor) -> None:
    """Look at the images where the rays to `x` (R,n), which are across, seem to cross."""
    if len(rows) == 0:
        return
    clean = search.clean[rows]
    ray = x - clean
    rate = torch.linalg.vecdot(gradient, ray)
    share = torch.where(rate < 0, 1 - gap / rate, 1.0).clamp(_CUT, 1.0)
    nearer = clean + share[:, None] * ray
    gap, slack = search.gaps(rows, search.logits(rows, nearer))
    search.keep(rows, nearer, gap, slack)
