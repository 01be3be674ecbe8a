"""A reference hull solver: nonnegative least squares, one row at a time.

With y_i = v_i - q, the x >= 0 that minimises |Σ x_i y_i|² + s² (Σ x_i - 1)² is t a with t > 0 and a
the weights of the hull's nearest point, whatever s > 0 is (Wolfe, "Finding the nearest point in a
polytope", Math. Programming 11 (1976)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from fsboundary.builtin.solvers.whole import Array, all_points, row_by_row
from fsboundary.interfaces import HullSolver
from fsboundary.protocols import PointSet
from fsboundary.results import HullProjection


@final
@dataclass(frozen=True, slots=True)
class Nnls(HullSolver):
    """Solve each row with scipy's Lawson-Hanson routine: accurate, one row at a time.

    Holds all points in float64, and a copy of them for the row in work. ``steps`` counts calls
    of scipy's routine, one a row: it does not tell its iterations, so ``max_steps`` has no effect.

    Parameters
    ----------
    most : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    most: int = 2**28

    def prepare(self, points: PointSet) -> Array:
        """Return all points (n,d)."""
        return all_points(points, self.most)

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

        def solve(query: Array, kept: NDArray[np.intp] | None) -> tuple[Array, int]:
            return simplex_weights(state if kept is None else state[kept], query), 1

        return row_by_row(queries, exclude, len(state), solve)


def simplex_weights(points: Array, query: Array) -> Array:
    """Return weights (n,) of the point of the hull of `points` (n,d) nearest to `query` (d,).

    At most d + 1 are above zero; all are zero where scipy's routine gave up.
    """
    count, d = points.shape
    lifted = np.ones((d + 1, count))
    np.subtract(points.T, query[:, None], out=lifted[:d])
    # the ones must be neither lost beside the coordinates nor drown them
    size = np.abs(lifted[:d]).max(initial=0.0)
    lifted[:d] /= size or 1.0
    right = np.zeros(d + 1)
    right[d] = 1.0
    try:
        weights, _ = optimize.nnls(lifted, right)
    except RuntimeError:  # its limit of iterations, three for each point
        return np.zeros(count)
    total = float(weights.sum())
    return np.asarray(weights / total) if total > 0 else np.zeros(count)
