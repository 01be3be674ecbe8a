"""Exact linear algebra for certificates.

Where the domain has no face, a residual of 1e-16 in ``Σ μ_m a_m`` proves nothing: the point may be
arbitrarily far away. But the residual can be shown to vanish for exact multipliers close to the
computed ones; those exact multipliers need not be known.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from fsboundary.core.tolerance import dot_error

Array = NDArray[np.float64]


def correction_bound(
    columns: Float64[Array, "B N"], residual: Float64[Array, " B"], error: Float64[Array, " B"]
) -> float:
    """Return a bound of |ε| for some ε with ``columns ε = -residual`` exactly, or +inf.

    With R the pseudo-inverse in float64 and E = columns R - 1, |E| <= q < 1 gives the exact right
    inverse R (1 + E)^-1, so |ε| <= |R| (|residual| + |error|) / (1 - q) with Frobenius norms. E is
    within γ |columns| |R| of its float64 value, which also covers entries rounded once.

    Parameters
    ----------
    columns : array (B, N)
        One vector per multiplier.
    residual, error : array (B,)
        The residual in float64 and a bound of its error.
    """
    b, n = columns.shape
    if b == 0:
        return 0.0
    if n < b:
        return np.inf
    gamma = dot_error(n + b + 16)
    try:
        inverse = np.linalg.pinv(columns)
    except np.linalg.LinAlgError:
        return np.inf
    length = np.linalg.norm(inverse)
    off = np.linalg.norm(columns @ inverse - np.eye(b))
    off += gamma * (np.linalg.norm(columns) * length + b)
    needed = np.linalg.norm(residual) + np.linalg.norm(error)
    if not off < 0.5:
        return np.inf
    return float(length * needed / (1 - off) * (1 + 4 * gamma))


MAX_EXACT_WORK = 20_000
"""Largest work, min(N, B)² max(N, B), up to which dependence is decided in fractions."""


def dependent_columns(rows: list[list[Fraction]]) -> list[bool]:
    """Return which columns are exact combinations of earlier ones; False if there are too many.

    Gaussian elimination in fractions.

    Parameters
    ----------
    rows : list of N lists of B fractions
        The matrix, modified in place.
    """
    width = len(rows[0]) if rows else 0
    out = [False] * width
    if min(len(rows), width) ** 2 * max(len(rows), width) > MAX_EXACT_WORK:
        return out
    rank = 0
    for q in range(width):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][q]), None)
        if pivot is None:
            out[q] = True
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            if factor := rows[k][q] / rows[rank][q]:
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return out
