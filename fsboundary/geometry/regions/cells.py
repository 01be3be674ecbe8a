"""Has a convex cell an interior? A strict point or multipliers prove it, in float64.

A cell is the set of x with ``rows x + offset > 0`` and ``lower < x < upper``; where the two limits
of a feature agree, x has that value. A linear program proposes the largest ball in it, and with its
multipliers a sum of constraints that no point meets; nothing of either is believed unchecked.
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
from fsboundary.geometry.lengths import TINY, lengths
from fsboundary.geometry.linear_programs import minimise


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
