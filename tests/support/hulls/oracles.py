"""Slow reference distances to a hull, and closed forms."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from operator import mul

import clarabel
import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def cloud(n: int, d: int, seed: int) -> Tensor:
    """Return normal float64 points (n,d)."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    """Return an orthogonal matrix (d,d)."""
    return torch.linalg.qr(cloud(d, d, seed))[0]


def clarabel_distances(points: Tensor, queries: Tensor) -> Tensor:
    """Return distances (B,) of the weights that Clarabel finds for min |Σ a_i (v_i - q)|."""
    return torch.stack([_clarabel_distance(points, query) for query in queries])


def _clarabel_distance(points: Tensor, query: Tensor) -> Tensor:
    shifted = (points - query).numpy()
    n, d = shifted.shape
    size = np.abs(shifted).max() or 1.0
    # variables (t, a): Σ a = 1, a >= 0, (t, Σ a_i y_i) in the second-order cone
    rows = [
        np.concatenate([[0.0], np.ones(n)])[None],
        -np.eye(n, n + 1, 1),
        -np.eye(1, n + 1),
        -np.concatenate([np.zeros((d, 1)), shifted.T / size], axis=1),
    ]
    matrix = sparse.csc_matrix(np.concatenate(rows))
    right = np.eye(1, n + d + 2)[0]
    cones = [
        clarabel.ZeroConeT(1),
        clarabel.NonnegativeConeT(n),
        clarabel.SecondOrderConeT(d + 1),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cost, quadratic = np.eye(1, n + 1)[0], sparse.csc_matrix((n + 1, n + 1))
    answer = clarabel.DefaultSolver(quadratic, cost, matrix, right, cones, settings).solve()
    weights = np.maximum(np.array(answer.x)[1:], 0.0)
    return torch.from_numpy(weights @ shifted / weights.sum()).norm()


def squared_distance(points: Tensor, query: Tensor) -> Fraction:
    """Return the squared distance without any rounding, by trying every possible support.

    The nearest point is that of the affine hull of its support, which may be taken affinely
    independent; the nearest point of an affine hull that lies in the hull is never nearer.
    """
    shifted = [
        [Fraction(v) - Fraction(q) for v, q in zip(point, query.tolist(), strict=True)]
        for point in points.tolist()
    ]
    candidates = []
    for size in range(1, min(len(shifted), len(query) + 1) + 1):
        for chosen in combinations(shifted, size):
            gram = [[sum(map(mul, u, v), Fraction(1)) for v in chosen] for u in chosen]
            x = _solve_ones(gram)
            if x is not None and min(x) >= 0:
                # (G + 11ᵀ) x = 1 and a = x / Σx give |Σ a_i y_i|² = aᵀGa = 1/Σx - 1
                candidates.append(1 / sum(x) - 1)
    return min(candidates)


def _solve_ones(matrix: list[list[Fraction]]) -> list[Fraction] | None:
    """Return x with matrix x = 1, or None if the symmetric matrix is singular."""
    rows = [[*row, Fraction(1)] for row in matrix]
    for i, pivot in enumerate(rows):
        if pivot[i] == 0:  # positive semidefinite: no other row has a better pivot
            return None
        pivot[:] = [value / pivot[i] for value in pivot]
        for k, row in enumerate(rows):
            if k != i:
                row[:] = [a - row[i] * b for a, b in zip(row, pivot, strict=True)]
    return [row[-1] for row in rows]


def onto_cube(queries: Tensor) -> Tensor:
    """Return the nearest points of [-1, 1]^d."""
    return queries.clamp(-1.0, 1.0)


def onto_simplex(queries: Tensor) -> Tensor:
    """Return the nearest points with coordinates >= 0 that sum to 1: cut at a common level."""
    ordered = queries.sort(dim=1, descending=True).values
    count = torch.arange(1, queries.shape[1] + 1)
    levels = (ordered.cumsum(dim=1) - 1) / count
    last = (ordered > levels).sum(dim=1, keepdim=True) - 1
    return (queries - levels.gather(1, last)).clamp_min(0.0)


def onto_cross_polytope(queries: Tensor) -> Tensor:
    """Return the nearest points with Σ|x| <= 1."""
    within = queries.abs().sum(dim=1, keepdim=True) <= 1
    return torch.where(within, queries, queries.sign() * onto_simplex(queries.abs()))
