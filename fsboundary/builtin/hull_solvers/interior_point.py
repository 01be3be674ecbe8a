"""A hull solver for few rows and wide hulls, also for pairs of hulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.geometry_interior_point import shortest_weights
from fsboundary.builtin.hull_solvers.least_squares import Array
from fsboundary.builtin.hull_solvers.stopping import SAFETY
from fsboundary.builtin.hull_solvers.whole import all_points, packed, row_by_row
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.point_sets import Lent
from fsboundary.geometry.hulls.separation import Differences
from fsboundary.plugins.interfaces import HullSolver


@final
@dataclass(frozen=True, slots=True)
class InteriorPoint(HullSolver):
    """Solve each row on all points at once: 20 to 40 steps, whatever the support.

    A step costs a product of n by d by d numbers. Two hulls are n + m points for it, not n m
    differences, so it is the choice for :func:`fsboundary.hulls.hull_separation` in hundreds of
    dimensions; for many rows in one hull it is slow. Inside a hull all points carry weight.

    Parameters
    ----------
    most : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    most: int = 2**28

    def prepare(self, points: PointSet) -> tuple[tuple[int, ...], Tensor]:
        """Return the sizes of the hulls and all points (n,d), those of a second hull negative."""
        own = points.own if isinstance(points, Lent) else points
        sides = (own.one, own.other) if isinstance(own, Differences) else (own,)
        held = [torch.from_numpy(all_points(side, self.most)) for side in sides]
        rows = held[0]
        if len(held) > 1:
            # differences do not feel a shift of both, but rounding does
            middle = rows.mean(dim=0)
            rows = torch.cat([rows - middle, middle - held[1]])
        return tuple(len(part) for part in held), rows

    def project(
        self,
        state: tuple[tuple[int, ...], Tensor],
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        sizes, points = state
        if exclude is not None and len(sizes) > 1:
            raise ArgumentError("exclude", "differences", "None", "leave points of a hull out")

        def solve(query: Array, kept: NDArray[np.intp] | None) -> tuple[Array, int]:
            shifted = points.clone() if kept is None else points[kept]
            own = sizes if kept is None else (len(kept),)
            shifted[: own[0]] -= torch.from_numpy(query)
            share, steps = shortest_weights(
                shifted, own, tolerance=SAFETY * tolerance, max_steps=max_steps
            )
            return share.numpy(), steps

        if len(sizes) == 1:
            return row_by_row(queries, exclude, len(points), solve)
        found = []
        for query in queries.cpu().numpy():
            share, steps = solve(query, None)
            found.append((*_differences(share, sizes[0]), steps))
        return packed(queries, found)


def _differences(share: Array, rows: int) -> tuple[NDArray[np.intp], Array]:
    """Return differences (S,) and weights that add up to those of both sides, `rows` of one."""
    # from the north-west corner
    ends = [np.cumsum(part) for part in (share[:rows], share[rows:])]
    ends = [end / end[-1] for end in ends]
    cuts = np.unique(np.concatenate(ends))
    cuts = cuts[cuts > 0]
    weights = np.diff(cuts, prepend=0.0)
    middle = cuts - weights / 2
    one, other = (np.minimum(np.searchsorted(end, middle), len(end) - 1) for end in ends)
    return one * (len(share) - rows) + other, weights
