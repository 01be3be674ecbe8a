"""Just inside the nearest image across: a descent by steps that are large at first."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.descent import Seen, cooled, look, turned
from fsboundary.builtin.image_finders.search_state import ImageSearch

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
