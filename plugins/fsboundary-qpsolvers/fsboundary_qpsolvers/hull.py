"""Hull solver that solves projections as quadratic programs."""

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
from fsboundary_qpsolvers.quadratic_program import Array, check_solver, num_iterations, solve

_TAIL = 1e-7
"""Interior point methods give every point some weight: lighter ones are left out at first."""


@dataclass(frozen=True)
class QpHull(fsb.HullSolver):
    """Solve min ½|y|² with y = q - Vᵀa, a on the simplex, row by row.

    Parameters
    ----------
    solver : str
        Name in ``qpsolvers.available_solvers``.
    accuracy : float
        Tolerance of the solver.
    """

    solver: str = "clarabel"
    accuracy: float = 1e-11

    def __post_init__(self) -> None:
        """Raise for a solver that is not available."""
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
            excluded = [] if exclude is None else [e for e in exclude[row].tolist() if e >= 0]
            included = np.setdiff1d(np.arange(len(state)), excluded)
            if len(included):
                weights[row, included], steps = self._weights(state[included], query, max_steps)
                fields["steps"][row] = steps
        table = torch.from_numpy(weights).to(queries.device)
        slots = max(int((table > 0).sum(dim=1).max()) if len(table) else 0, 1)
        fields["weights"], support = table.topk(slots, dim=1)
        fields["support"] = torch.where(fields["weights"] > 0, support, -1)
        return fsb.HullProjection(**fields)

    def _weights(self, points: Array, query: Array, max_steps: int) -> tuple[Array, int]:
        """Return weights (n,), all zero if no solution was found, and steps."""
        n, d = points.shape
        centred = points - query
        size = np.abs(centred).max() or 1.0
        residual = sparse.hstack([sparse.identity(d), sparse.csc_matrix(centred.T / size)])
        total = sparse.csc_matrix(np.concatenate([np.zeros(d), np.ones(n)])[None])
        low = np.concatenate([np.full(d, -np.inf), np.zeros(n)])
        solution = solve(
            self.solver,
            self.accuracy,
            max_steps,
            sparse.block_diag([sparse.identity(d), sparse.csc_matrix((n, n))]),
            equalities=(sparse.vstack([residual, total]), np.concatenate([np.zeros(d), [1.0]])),
            limits=(low, np.full(d + n, np.inf)),
        )
        if solution is None or solution.x[d:].max() <= 0:
            return np.zeros(n), 0
        raw = np.maximum(solution.x[d:], 0.0)
        raw /= raw.sum()
        refined = _refine_weights(centred / size, raw)
        better = np.linalg.norm(refined @ centred) <= np.linalg.norm(raw @ centred) * (1 + 1e-12)
        return (refined if better else raw), num_iterations(solution)


def _refine_weights(centred: Array, weights: Array) -> Array:
    """Return the weights of the point nearest to 0 in the affine hull of the heavy points.

    Points with negative weight are removed until none is left.
    """
    kept = np.flatnonzero(weights > _TAIL)
    while True:
        base, along = centred[kept[0]], (centred[kept[1:]] - centred[kept[0]]).T
        start = weights[kept[1:]] / weights[kept].sum()
        start = start + np.linalg.lstsq(along, -(base + along @ start), rcond=1e-12)[0]
        fractions = np.concatenate([[1 - start.sum()], start])
        if len(kept) == 1 or fractions.min() >= 0:
            break
        kept = kept[fractions > 0]
    refined = np.zeros_like(weights)
    refined[kept] = fractions
    return refined
