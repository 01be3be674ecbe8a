"""The reference boundary finder: one cvxpy program a problem."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import cvxpy as cp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.cvxpy_options import solve_options
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips


@final
@dataclass(frozen=True, slots=True)
class CvxpyFinder(BoundaryFinder):
    """Solve each flip problem with cvxpy: slow, independent of the fast path, any solver.

    Parameters
    ----------
    solver : str
        A quadratic solver that cvxpy has; Clarabel comes with it.
    accuracy : float
        Gap and feasibility tolerance asked of Clarabel; other solvers keep their defaults.
        Clarabel gives up on many problems of 64 features below 1e-11.
    """

    solver: str = "CLARABEL"
    accuracy: float = 1e-10

    def find(
        self,
        head: LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose flip points of `features` (B,d) for `targets` (B,T), one at a time."""
        source = head.predict(features)
        fields = unsolved_flips(features, source, targets)
        shape = (*targets.shape, head.num_classes)
        fields["active"] = (
            torch.arange(head.num_classes, device=targets.device).expand(shape).clone()
        )
        fields["multipliers"] = torch.zeros(shape, dtype=torch.float64, device=targets.device)
        low, high = (t.cpu().numpy() for t in head.domain.limits(features))
        program = _FlipProgram(head, low, high)
        options = solve_options(self.solver, self.accuracy, max_steps)
        for row in range(targets.shape[0]):
            z = features[row].cpu().numpy()
            for column in range(targets.shape[1]):
                point, lam, steps = program.solve(
                    z,
                    int(source[row]),
                    int(targets[row, column]),
                    options,
                )
                fields["steps"][row, column] = steps
                fields["points"][row, column] = torch.from_numpy(point).to(features)
                fields["multipliers"][row, column] = torch.from_numpy(lam).to(features)
        return FlipPoints(**fields)


@final
class _FlipProgram:
    """The flip problem as a cvxpy program, formed once a problem."""

    def __init__(self, head: LinearHead, low: NDArray[Any], high: NDArray[Any]) -> None:
        self.weight, self.bias = head.weight.cpu().numpy(), head.bias.cpu().numpy()
        self.low, self.high = low, high

    def solve(
        self, z: NDArray[Any], i: int, j: int, options: dict[str, Any]
    ) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Return z' (d,), multipliers by class (K,) and iterations; NaN where none was found."""
        others = np.setdiff1d(np.arange(len(self.bias)), [i, j])
        x = cp.Variable(len(z))
        tie = (self.weight[i] - self.weight[j]) @ x + (self.bias[i] - self.bias[j]) == 0
        slack = (self.weight[j] - self.weight[others]) @ x + (self.bias[j] - self.bias[others]) >= 0
        limits = []
        below, above = np.isfinite(self.low), np.isfinite(self.high)
        if below.any():
            limits.append(x[below] >= self.low[below])
        if above.any():
            limits.append(x[above] <= self.high[above])
        constraints = [tie, *([slack] if len(others) else []), *limits]
        distance = cp.sum_squares(x - z)  # type: ignore[attr-defined]  # cvxpy does not declare it
        problem = cp.Problem(cp.Minimize(0.5 * distance), constraints)
        lam = np.zeros(len(self.bias))
        with warnings.catch_warnings():
            # "may be inaccurate": the core measures how inaccurate
            warnings.simplefilter("ignore")
            try:
                problem.solve(**options)
            except cp.SolverError:
                return np.full(len(z), np.nan), lam, 0
        steps = problem.solver_stats.num_iters or 0 if problem.solver_stats else 0
        if x.value is None or tie.dual_value is None:
            return np.full(len(z), np.nan), lam, int(steps)
        # cvxpy's Lagrangian adds ν (a.x + c) and subtracts μ (slack), ours subtracts both
        lam[j] = -float(np.asarray(tie.dual_value).reshape(-1)[0])
        if len(others):
            lam[others] = np.maximum(slack.dual_value, 0.0)
        return np.asarray(x.value), lam, int(steps)
