"""Which constraints of a cell are needed, each with a proof.

A constraint is needed if the set beyond it, where it alone is broken, has an interior: a point
there is the proof. It is redundant if that set is empty, which multipliers prove. Both are
questions about cells (:mod:`fsboundary.geometry.regions.cells`). Rays from a point of the cell find most of
the points: between the first plane that a ray crosses and the second, only the first is broken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.geometry.lengths import lengths
from fsboundary.geometry.regions.cells import Cell, probe

NEEDED, REDUNDANT, OPEN = 1, -1, 0


def needed_constraints(cell: Cell, interior: Tensor) -> tuple[Tensor, Tensor]:
    """Return a verdict (M + 2d,) on each constraint and a point (M + 2d, d) that breaks it alone.

    First come the rows, then the lower limits, then the upper ones. OPEN: neither was proved.
    REDUNDANT also where there is no limit, or a feature that does not vary. NaN for no point.
    What lies a million times farther away than the farthest plane does not count as beyond.

    Parameters
    ----------
    cell : Cell
        No two rows alike.
    interior : Tensor (d,)
        Strictly inside.
    """
    lows, highs = (torch.isfinite(t) & cell.free for t in (cell.lower, cell.upper))
    kept = torch.cat([torch.ones(len(cell.rows), dtype=torch.bool), lows, highs])
    verdict = torch.where(kept, OPEN, REDUNDANT)
    points = torch.full((len(kept), len(interior)), torch.nan, dtype=torch.float64)
    eye = torch.eye(len(interior), dtype=torch.float64)
    planes = torch.cat([cell.rows * cell.free, eye[lows], -eye[highs]])
    limits = (interior - cell.lower)[lows], (cell.upper - interior)[highs]
    slack = torch.cat([cell.rows @ interior + cell.offset, *limits])
    names = kept.nonzero()[:, 0]
    if not len(names):
        return verdict, points
    first, crossings = _beyond_the_first(planes, slack, interior)
    for place, point in zip(first.tolist(), crossings, strict=True):
        s = int(names[place])
        if verdict[s] == OPEN and _beyond(cell, kept, s).holds(point):
            verdict[s], points[s] = NEEDED, point
    size = lengths(planes)
    # a row that no free feature enters has no plane, and any unit will do
    depth = torch.where(size > 0, slack / size, 1.0)
    far = float(depth.max())
    for place in (verdict[names] == OPEN).nonzero()[:, 0].tolist():
        s = int(names[place])
        found = probe(_beyond(cell, kept, s), interior, float(depth[place]), far)
        if isinstance(found, Tensor):
            verdict[s], points[s] = NEEDED, found
        elif not found:
            # at once, so that of two that stand for each other one stays
            verdict[s], kept[s] = REDUNDANT, False
    return verdict, points


def _beyond(cell: Cell, kept: Tensor, s: int) -> Cell:
    """Return the cell where constraint `s` is broken and the other kept ones hold."""
    count, width = cell.rows.shape
    rows, (lows, highs) = kept[:count].clone(), kept[count:].split(width)
    # a feature that does not vary keeps its value
    lower = torch.where(lows | ~cell.free, cell.lower, -torch.inf)
    upper = torch.where(highs | ~cell.free, cell.upper, torch.inf)
    sign = torch.ones_like(cell.offset)
    side, m = divmod(s - count, width)
    if s < count:
        rows[s], sign[s] = True, -1.0
    elif side == 0:
        lower[m], upper[m] = -torch.inf, cell.lower[m]
    else:
        lower[m], upper[m] = cell.upper[m], torch.inf
    return Cell(
        rows=(sign[:, None] * cell.rows)[rows],
        offset=(sign * cell.offset)[rows],
        lower=lower,
        upper=upper,
    )


def _beyond_the_first(planes: Tensor, slack: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return which plane each ray crosses first, and a point between it and the second.

    One ray goes straight towards every plane (N,d); `slack` (N,) is positive at `start`.
    """
    fall = planes @ planes.T
    when = torch.where(fall > 0, slack / fall, torch.inf)
    near, first = when.min(dim=1)
    far = when.scatter(1, first[:, None], torch.inf).amin(dim=1)
    middle = (near + torch.minimum(far, 3 * near)) / 2
    crossed = torch.isfinite(middle) & (near > 0)
    points = start - middle[:, None] * planes
    return first[crossed], points[crossed]
