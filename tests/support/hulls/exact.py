"""Nearest point of a hull to the origin by Wolfe's method, for two kinds of numbers.

The same code serves fractions, where it ends with the exact solution, and longdouble, where it ends
when rounding stops its progress. It uses only sums, products, quotients and comparisons.

Wolfe, "Finding the nearest point in a polytope", Math. Programming 11 (1976).
"""

from __future__ import annotations

import numpy as np

from support.numbers import Array, lift

MAX_ROUNDS = 2000


def nearest_weights(points: Array) -> Array:
    """Return weights (n,) of the point of least norm in the hull of `points` (n,d).

    Parameters
    ----------
    points : array (n, d) of fractions, or of longdouble
    """
    norms = (points * points).sum(axis=1)
    active, weights = [int(norms.argmin())], [norms[0] * 0 + 1]
    for _ in range(MAX_ROUNDS):
        x = _weighted_sum(weights, points[active])
        values = points @ x
        best = int(values.argmin())
        if best in active or values[best] >= (x * x).sum():
            break
        active, weights = [*active, best], [*weights, weights[0] * 0]
        while True:
            affine = _affine_minimiser(points[active])
            if affine is None:  # dependent up to rounding: longdouble only
                return _scatter(len(points), active, weights)
            leaving = [s for s, value in enumerate(affine) if value <= 0]
            if not leaving:
                weights = affine
                break
            step = min(weights[s] / (weights[s] - affine[s]) for s in leaving)
            weights = [a + step * (b - a) for a, b in zip(weights, affine, strict=True)]
            last = min(leaving, key=lambda s: weights[s])
            positive = [s for s, value in enumerate(weights) if value > 0 and s != last]
            active, weights = [active[s] for s in positive], [weights[s] for s in positive]
            total = sum(weights[1:], weights[0])
            weights = [value / total for value in weights]
    return _scatter(len(points), active, weights)


def _weighted_sum(weights: list, points: Array) -> Array:  # type: ignore[type-arg]  # either kind of number
    return (np.array(weights)[:, None] * points).sum(axis=0)


def _scatter(count: int, active: list[int], weights: list) -> Array:  # type: ignore[type-arg]  # above
    out = np.array([weights[0] * 0] * count)
    out[active] = weights
    return out


def _affine_minimiser(points: Array) -> list | None:  # type: ignore[type-arg]  # above
    """Return the weights, summing to 1, of the affine hull's least-norm point: (G + s 11ᵀ) x = 1.

    None if a pivot is not above zero, which affinely independent points never have.
    """
    gram = points @ points.T
    gram = gram + gram.diagonal().max() + (gram[0, 0] == 0)
    n = len(gram)
    right = np.array([gram[0, 0] * 0 + 1] * n)
    for i in range(n):
        if not gram[i, i] > 0:
            return None
        for k in range(i + 1, n):
            factor = gram[k, i] / gram[i, i]
            gram[k] = gram[k] - factor * gram[i]
            right[k] = right[k] - factor * right[i]
    x = list(right)
    for i in reversed(range(n)):
        rest = sum((gram[i, k] * x[k] for k in range(i + 1, n)), x[i] * 0)
        x[i] = (x[i] - rest) / gram[i, i]
    total = sum(x[1:], x[0])
    return [value / total for value in x] if total > 0 else None


def shifted(points: Array, query: Array, exact: bool) -> Array:
    """Return v - q (n,d) for float64 points and query, as fractions or longdouble."""
    return np.asarray(lift(points, exact) - lift(query, exact))
