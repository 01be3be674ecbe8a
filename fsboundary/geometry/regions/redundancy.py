"""Has a convex cell an interior? A strict point or multipliers prove it, in float64.

A cell is the set of x with ``rows x + offset > 0`` and ``lower < x < upper``; where the two limits
of a feature agree, x has that value. A linear program proposes the largest ball in it, and with its
multipliers a sum of constraints that no point meets; nothing of either is believed unchecked.

Which constraints of a cell are needed, each with a proof.

A constraint is needed if the set beyond it, where it alone is broken, has an interior: a point
there is the proof. It is redundant if that set is empty, which multipliers prove. Both are
questions about cells (:mod:`fsboundary.geometry.regions.redundancy`). Rays from a point of the cell find most of
the points: between the first plane that a ray crosses and the second, only the first is broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from fsboundary.core.tolerance import TOO_FAR, dot_error
from fsboundary.geometry.flips.bounds import reach
from fsboundary.geometry.linear_programs import minimise
from fsboundary.geometry.norms import TINY, lengths


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """Constraints of a cell; each row and offset is a difference that was rounded at most once.

    Attributes
    ----------
    rows : Tensor (M, d), float64, on the CPU
    offset : Tensor (M,)
    lower, upper : Tensor (d,)
    """

    rows: Tensor
    offset: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def free(self) -> Tensor:
        """Which features may vary, (d,)."""
        return self.lower < self.upper

    def scale(self, anchor: Tensor) -> float:
        """Return the length of `anchor` (d,) plus the distance of the farthest plane from 0."""
        norm = lengths(self.rows)
        planes = torch.where(norm > 0, self.offset.abs() / norm, 0.0)
        return float(lengths(anchor)) + max(planes.tolist(), default=0.0)

    def holds(self, x: Tensor) -> bool:
        """Whether `x` (d,) certainly lies in the cell, strictly inside every limit."""
        gamma = dot_error(len(x) + 8)
        value = self.rows @ x + self.offset
        error = gamma * (self.rows.abs() @ x.abs() + self.offset.abs() + 4 * TINY)
        within = torch.where(self.free, (self.lower < x) & (x < self.upper), self.lower == x)
        # NaN and an error that overflowed compare false
        return bool((value > error).all() and within.all() and torch.isfinite(x).all())

    def lacks_points(self, multipliers: Tensor, anchor: Tensor, scale: float) -> bool:
        """Whether `multipliers` (M,), at least 0, prove the cell empty.

        Also true, as for INFEASIBLE, where the cell is proved to lie farther from `anchor` (d,)
        than a million times `scale`.
        """
        lam, anchor = (
            multipliers[None],
            torch.minimum(torch.maximum(anchor, self.lower), self.upper),
        )
        enters = ((multipliers != 0)[:, None] & (self.rows != 0)).any(dim=0)
        radius = reach(
            anchor[None],
            self.lower,
            self.upper,
            dot_error(2 * len(anchor) + 4 * len(multipliers) + 32),
            lam @ self.rows,
            lam @ self.rows.abs() + TINY * enters,
            lam @ self.offset,
            lam @ self.offset.abs(),
        )
        # a scale of 0 says nothing about what is far
        far = torch.isinf(radius) | ((radius > TOO_FAR * scale) & (scale > 0))
        return bool(far.all())


def probe(cell: Cell, anchor: Tensor, unit: float, scale: float) -> Tensor | bool:
    """Return a point (d,) strictly inside `cell`; False if it is proved empty, True if undecided.

    Parameters
    ----------
    cell : Cell
    anchor : Tensor (d,)
        Where the program has its origin.
    unit : float
        Its unit of length.
    scale : float
        A million times as far from `anchor` as this does not count.
    """
    found = _largest_ball(cell, anchor, unit)
    if found is None:
        return True
    point, multipliers = found
    if cell.holds(point):
        return point
    return not cell.lacks_points(multipliers, anchor, scale)


def _largest_ball(cell: Cell, anchor: Tensor, unit: float) -> tuple[Tensor, Tensor] | None:
    """Return centre (d,) and multipliers (M,) of a largest ball, at most `unit` wide, by HiGHS.

    Where the cell has no interior the radius is negative: how far all constraints must be moved.
    """
    free, count = cell.free.numpy(), len(cell.rows)
    start, rows, offset = anchor.numpy(), cell.rows.numpy(), cell.offset.numpy()
    norm = lengths(cell.rows * cell.free).numpy()
    norm = np.where(norm > 0, norm, np.where(offset != 0, abs(offset), 1.0))
    eye = sparse.identity(len(start), format="csr")[:, free]
    low, high = cell.lower.numpy(), cell.upper.numpy()
    lows, highs = np.isfinite(low) & free, np.isfinite(high) & free
    with np.errstate(over="ignore", invalid="ignore"):  # such programs are refused
        slack = (rows @ start + offset) / norm
        right = np.concatenate([slack, (start - low)[lows], (high - start)[highs]]) / unit
        scaled = sparse.csr_array(rows[:, free] / norm[:, None])
    matrix = sparse.vstack([-scaled, -eye[lows], eye[highs]])
    width = matrix.shape[1]
    found = minimise(
        np.append(np.zeros(width), -1.0),
        np.full(width + 1, -np.inf),
        np.append(np.full(width, np.inf), 1.0),
        rows=sparse.csc_array(sparse.hstack([matrix, np.ones((len(right), 1))])),
        right=right,
    )
    if found is None:
        return None
    point = np.where(free, start, low)
    point[free] += unit * found.x[:-1]
    return torch.from_numpy(point), torch.from_numpy(found.on_rows[:count] / norm)


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
