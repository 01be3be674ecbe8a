"""Multipliers that balance exactly, near multipliers that balance up to rounding.

Where the domain has no face, a residual of 1e-16 in ``Σ μ_m a_m`` proves nothing: the point may be
arbitrarily far. But the residual can be shown to vanish for exact multipliers close by, which need
not be known.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.linear_programs import Array


def correction_bound(columns: Array, residual: Array, error: Array) -> float:
    """Return a bound of |ε| for some ε with ``columns ε = -residual`` exactly, or +inf.

    With R the pseudo-inverse in float64 and E = columns R - 1, |E| <= q < 1 gives the exact right
    inverse R (1 + E)^-1, so |ε| <= |R| (|residual| + |error|) / (1 - q) with Frobenius norms. E is
    within γ |columns| |R| of its float64 value, which also covers entries rounded once.

    Parameters
    ----------
    columns : array (B, N)
        A vector for each multiplier.
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


FEW = 20_000
"""Up to this much work, min(N, B)² max(N, B), dependence is decided in fractions."""


def dependent_columns(rows: list[list[Fraction]]) -> list[bool]:
    """Return which columns are, exactly, combinations of earlier ones (Gauss); False if too many.

    Parameters
    ----------
    rows : list of N lists of B fractions
        Changed on the way.
    """
    width = len(rows[0]) if rows else 0
    out = [False] * width
    if min(len(rows), width) ** 2 * max(len(rows), width) > FEW:
        return out
    rank = 0
    for q in range(width):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][q]), None)
        if pivot is None:
            out[q] = True
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            if share := rows[k][q] / rows[rank][q]:
                rows[k] = [x - share * y for x, y in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return out
