"""The nearest point of the hull of few points, by nonnegative least squares.

With y_i = v_i - q, the x >= 0 that minimises |Σ x_i y_i|² + s² (Σ x_i - 1)² is t a with t > 0 and a
the weights of the hull's nearest point, whatever s > 0 is (Wolfe, "Finding the nearest point in a
polytope", Math. Programming 11 (1976)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Array = NDArray[np.float64]


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
