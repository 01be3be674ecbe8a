"""Projection on a hull as a quadratic program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

import fsboundary as fsb
from fsboundary.core.protocols import PointSet
from fsboundary.plugins.interfaces import unsolved_hulls
from fsboundary_qpsolvers.solving import Array, check_solver, solve, steps_of

_TAIL = 1e-7
"""Interior point methods give every point some weight: lighter ones are left out at first."""


@dataclass(frozen=True)
class QpHull(fsb.HullSolver):
    """Solve min ½|y|² with y = q - Vᵀa, a on the simplex, row by row.

    Parameters
    ----------
    solver : str
        One of ``qpsolvers.available_solvers``.
    accuracy : float
        Tolerance asked of the solver.
    """

    solver: str = "clarabel"
    accuracy: float = 1e-11

    def __post_init__(self) -> None:
        """Refuse a solver that is not there."""
        check_solver(self.solver)

    def prepare(self, points: PointSet) -> Array:
        """Return all points (n,d)."""
        every = points.take(torch.arange(len(points)))
        return np.asarray(every.to(torch.float64).cpu().numpy())

    def project(
        self,
        state: Array,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> fsb.HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        fields: dict[str, Any] = unsolved_hulls(queries)
        weights = np.zeros((len(queries), len(state)))
        for row, query in enumerate(queries.cpu().numpy()):
            out = [] if exclude is None else [e for e in exclude[row].tolist() if e >= 0]
            kept = np.setdiff1d(np.arange(len(state)), out)
            if len(kept):
                weights[row, kept], steps = self._weights(state[kept], query, max_steps)
                fields["steps"][row] = steps
        found = torch.from_numpy(weights).to(queries.device)
        slots = max(int((found > 0).sum(dim=1).max()) if len(found) else 0, 1)
        fields["weights"], support = found.topk(slots, dim=1)
        fields["support"] = torch.where(fields["weights"] > 0, support, -1)
        return fsb.HullProjection(**fields)

    def _weights(self, points: Array, query: Array, max_steps: int) -> tuple[Array, int]:
        """Return weights (n,), all zero where nothing was found, and steps."""
        n, d = points.shape
        about = points - query
        size = np.abs(about).max() or 1.0
        residual = sparse.hstack([sparse.identity(d), sparse.csc_matrix(about.T / size)])
        total = sparse.csc_matrix(np.concatenate([np.zeros(d), np.ones(n)])[None])
        low = np.concatenate([np.full(d, -np.inf), np.zeros(n)])
        found = solve(
            self.solver,
            self.accuracy,
            max_steps,
            sparse.block_diag([sparse.identity(d), sparse.csc_matrix((n, n))]),
            equalities=(sparse.vstack([residual, total]), np.concatenate([np.zeros(d), [1.0]])),
            limits=(low, np.full(d + n, np.inf)),
        )
        if found is None or found.x[d:].max() <= 0:
            return np.zeros(n), 0
        raw = np.maximum(found.x[d:], 0.0)
        raw /= raw.sum()
        sharp = _sharpened(about / size, raw)
        better = np.linalg.norm(sharp @ about) <= np.linalg.norm(raw @ about) * (1 + 1e-12)
        return (sharp if better else raw), steps_of(found)


def _sharpened(about: Array, weights: Array) -> Array:
    """Return the weights of the point nearest to 0 on the flat through the heavy points.

    Points whose weight would be negative leave, until none is.
    """
    kept = np.flatnonzero(weights > _TAIL)
    while True:
        base, along = about[kept[0]], (about[kept[1:]] - about[kept[0]]).T
        start = weights[kept[1:]] / weights[kept].sum()
        start = start + np.linalg.lstsq(along, -(base + along @ start), rcond=1e-12)[0]
        share = np.concatenate([[1 - start.sum()], start])
        if len(kept) == 1 or share.min() >= 0:
            break
        kept = kept[share > 0]
    sharp = np.zeros_like(weights)
    sharp[kept] = share
    return sharp
