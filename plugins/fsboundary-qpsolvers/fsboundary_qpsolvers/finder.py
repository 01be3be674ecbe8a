"""Boundary finder that solves flip points as quadratic programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

import fsboundary as fsb
from fsboundary.plugins.interfaces import unsolved_flips
from fsboundary_qpsolvers.quadratic_program import Array, check_solver, num_iterations, solve

_LOOSER = 1e2
"""If a solver fails for lack of digits, its tolerance is raised by this factor."""


@dataclass(frozen=True)
class QpFinder(fsb.BoundaryFinder):
    """Solve min ½|z' - z|² on the tie, below no other class and in the domain, one at a time.

    If no such point is found, the constraints are relaxed by as little as possible: the
    relaxations are a proof that the constraints are incompatible, if they are.

    Parameters
    ----------
    solver : str
        Name in ``qpsolvers.available_solvers``.
    accuracy : float
        Tolerance of the solver.
    """

    solver: str = "clarabel"
    accuracy: float = 1e-12

    def __post_init__(self) -> None:
        """Raise for a solver that is not available."""
        check_solver(self.solver)

    def find(
        self,
        head: fsb.LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> fsb.FlipPoints:
        """Propose flip points of `features` (B,d) for `targets` (B,T)."""
        source = head.predict(features)
        fields = unsolved_flips(features, source, targets)
        classes = torch.arange(head.num_classes, device=targets.device)
        fields["active"] = classes.expand(*targets.shape, -1).clone()
        fields["multipliers"] = torch.zeros(fields["active"].shape, dtype=torch.float64).to(
            features
        )
        weight, bias = head.weight.cpu().numpy(), head.bias.cpu().numpy()
        low, high = (t.cpu().numpy() for t in head.domain.limits(features))
        for row, column in np.ndindex(*targets.shape):
            z, i, j = features[row].cpu().numpy(), int(source[row]), int(targets[row, column])
            others = np.setdiff1d(np.arange(len(bias)), [i, j])
            # the tie first, then the slacks; each row of length 1
            rows = np.concatenate([(weight[i] - weight[j])[None], weight[j] - weight[others]])
            offsets = np.concatenate([[bias[i] - bias[j]], bias[j] - bias[others]]) + rows @ z
            sizes = np.linalg.norm(rows, axis=1)
            sizes[sizes == 0] = 1.0
            step, factors, steps = self._step(
                rows / sizes[:, None], offsets / sizes, (low - z, high - z), max_steps
            )
            fields["points"][row, column] = torch.from_numpy(np.clip(z + step, low, high)).to(
                features
            )
            lam = np.zeros(len(bias))
            lam[[j, *others]] = factors / sizes
            fields["multipliers"][row, column] = torch.from_numpy(lam).to(features)
            fields["steps"][row, column] = steps
        return fsb.FlipPoints(**fields)

    def _step(
        self, rows: Array, offsets: Array, limits: tuple[Array, Array], max_steps: int
    ) -> tuple[Array, Array, int]:
        """Return the step (d,) to the flip point, NaN where there is none, multipliers, steps."""
        count, d = rows.shape
        # qpsolvers: P x + Gᵀ z + Aᵀ y + (limits) = 0 with G x <= h; ours: step = Mᵀ λ
        for accuracy in (self.accuracy, self.accuracy * _LOOSER):
            solution = solve(
                self.solver,
                accuracy,
                max_steps,
                sparse.identity(d),
                equalities=(rows[:1], -offsets[:1]),
                inequalities=(-rows[1:], offsets[1:]) if count > 1 else None,
                limits=limits,
            )
            if solution is not None and solution.found:
                break
        if solution is not None and solution.found:
            factors = np.zeros(count)
            factors[0] = -solution.y[0]
            if count > 1:
                factors[1:] = np.maximum(solution.z, 0.0)
            return solution.x, factors, num_iterations(solution)
        step = np.full(d, np.nan)
        # rows @ s + offsets = t for the tie, >= t for the slacks, with the smallest |t|
        loose = np.concatenate([rows, -np.eye(count)], axis=1)
        free = np.full(count, np.inf)
        solution = solve(
            self.solver,
            self.accuracy,
            max_steps,
            sparse.diags(np.concatenate([np.zeros(d), np.ones(count)])),
            equalities=(loose[:1], -offsets[:1]),
            inequalities=(-loose[1:], offsets[1:]) if count > 1 else None,
            limits=(np.concatenate([limits[0], -free]), np.concatenate([limits[1], free])),
        )
        if solution is None:
            return step, np.zeros(count), max_steps
        factors = -solution.x[d:]
        factors[1:] = np.maximum(factors[1:], 0.0)
        return step, factors, num_iterations(solution)
