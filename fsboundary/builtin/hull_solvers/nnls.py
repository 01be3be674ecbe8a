"""A reference hull solver: nonnegative least squares, one row at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import all_points, solve_rows
from fsboundary.builtin.hull_solvers.min_norm_point import Array, simplex_weights
from fsboundary.core.checks import check_integers
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.plugins.interfaces import HullSolver


@final
@dataclass(frozen=True, slots=True)
class Nnls(HullSolver):
    """Solve each row with scipy's Lawson-Hanson routine: accurate, one row at a time.

    Keeps all points in float64, and a copy of them for the current row. ``steps`` counts calls of
    scipy's routine, one per row: it does not report its iterations, so ``max_steps`` has no effect.

    Parameters
    ----------
    max_elements : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    max_elements: int = 2**28

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(self, max_elements=self.max_elements)

    def prepare(self, points: PointSet) -> Array:
        """Return all points (n,d)."""
        return all_points(points, self.max_elements)

    def project(
        self,
        state: Array,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""

        def solve(query: Array, included: NDArray[np.intp] | None) -> tuple[Array, int]:
            return simplex_weights(state if included is None else state[included], query), 1

        return solve_rows(queries, exclude, len(state), solve)
