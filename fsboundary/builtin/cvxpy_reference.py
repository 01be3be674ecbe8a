"""Reference boundary finder and reference hull solver with cvxpy.

The finder forms one program per problem; the hull solver solves one parametrised program anew for
each row.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import cvxpy as cp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import all_points, solve_rows
from fsboundary.builtin.hull_solvers.min_norm_point import Array, simplex_weights
from fsboundary.core.checks import check_integers, check_number
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import FlipPoints, HullProjection
from fsboundary.plugins.interfaces import BoundaryFinder, HullSolver, unsolved_flips


def solve_options(solver: str, accuracy: float, max_steps: int) -> dict[str, Any]:
    """Return keyword arguments of cvxpy's ``solve``: Clarabel's tolerances, or only the name."""
    if solver.upper() != "CLARABEL":
        return {"solver": solver}
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    return {"solver": solver, "max_iter": max_steps, **dict.fromkeys(names, accuracy)}


def _check_solver(solver: object, accuracy: object) -> None:
    """Raise ArgumentError unless cvxpy can use `solver`, and `accuracy` is between 0 and 1."""
    installed = cp.installed_solvers()
    if not isinstance(solver, str) or solver.upper() not in installed:
        wanted, fix = f"one of {', '.join(installed)}", "choose one of these, or install the other"
        raise ArgumentError("solver", repr(solver), wanted, fix)
    check_number("accuracy", accuracy, 0, 1, fix="leave it out")


@final
@dataclass(frozen=True, slots=True)
class CvxpyFinder(BoundaryFinder):
    """Solve each flip problem with cvxpy: slow, independent of the fast path, any solver.

    Parameters
    ----------
    solver : str
        A quadratic solver supported by cvxpy; Clarabel is installed with it.
    accuracy : float
        Gap and feasibility tolerance of Clarabel; other solvers keep their defaults.
        Below 1e-11, Clarabel fails on many problems of 64 features.
    """

    solver: str = "CLARABEL"
    accuracy: float = 1e-10

    def __post_init__(self) -> None:
        """Raise ArgumentError unless cvxpy can use the solver, and for options out of range."""
        _check_solver(self.solver, self.accuracy)

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
    """The flip problem as a cvxpy program, formed once per problem."""

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
        constraints = [tie]
        below, above = np.isfinite(self.low), np.isfinite(self.high)
        # cvxpy before 1.9 rejects matrices without rows
        if len(others):
            weight, bias = self.weight[j] - self.weight[others], self.bias[j] - self.bias[others]
            slack = weight @ x + bias >= 0
            constraints.append(slack)
        if below.any():
            constraints.append(x[below] >= self.low[below])
        if above.any():
            constraints.append(x[above] <= self.high[above])
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


_TAIL = 1e-11
"""The lightest points, up to this fraction of all weight, are left out: an interior point method
gives every point some weight. This moves the solution by at most that fraction of the hull's
width."""

_NEAR = 1e-3
"""Distances below this fraction of the scale are minimised again, as |y|: where |y|² vanishes to
rounding, half of the digits of |y| are lost. Far from the hull |y|² gives the better point."""


@final
@dataclass(frozen=True, slots=True)
class CvxpyHull(HullSolver):
    """Solve each row with cvxpy: slow, independent of the fast path, any conic solver.

    Minimises |y|² subject to y = q - Vᵀa, with y and a on the simplex as variables: the quadratic
    part has only d variables, however many points there are. Rows close to the hull are solved a
    second time, for |y|. The query is a parameter, so the program is compiled once; a row with
    excluded points has its own program.

    Parameters
    ----------
    solver : str
        A solver of quadratic and conic programs supported by cvxpy; Clarabel is installed with it.
    accuracy : float
        Gap and feasibility tolerance of Clarabel; other solvers keep their defaults.
    max_elements : int
        Largest number of rows times width that is accepted; Clarabel needs about 200 bytes for
        each of these numbers.

    Raises
    ------
    ArgumentError
        cvxpy does not support the solver, or it is not installed.
    """

    solver: str = "CLARABEL"
    accuracy: float = 1e-13
    max_elements: int = 2**24

    def __post_init__(self) -> None:
        """Raise ArgumentError unless cvxpy can use the solver, and for options out of range."""
        _check_solver(self.solver, self.accuracy)
        check_integers(self, max_elements=self.max_elements)

    def prepare(self, points: PointSet) -> _HullProgram:
        """Return the program with all points."""
        return _HullProgram(all_points(points, self.max_elements))

    def project(
        self,
        state: _HullProgram,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        options = solve_options(self.solver, self.accuracy, max_steps)

        def solve(query: Array, included: NDArray[np.intp] | None) -> tuple[Array, int]:
            program = state if included is None else _HullProgram(state.points[included])
            return program.solve(query, options)

        return solve_rows(queries, exclude, len(state.points), solve)


@final
class _HullProgram:
    """Projection on the hull of `points` (n,d) as a cvxpy program, moved and scaled."""

    def __init__(self, points: Array) -> None:
        self.points = points
        # relative to a point, not the mean, which rounding displaces from identical points
        centred = points - points[0]
        self._scale = float(np.abs(centred).max()) or 1.0
        self._weights = cp.Variable(len(points), nonneg=True)
        self._query = cp.Parameter(points.shape[1])
        self._away = cp.Variable(points.shape[1])
        constraints = [
            self._away + (centred / self._scale).T @ self._weights == self._query,
            cp.sum(self._weights) == 1,  # type: ignore[attr-defined]  # cvxpy does not declare it
        ]
        square = cp.sum_squares(self._away)  # type: ignore[attr-defined]  # cvxpy does not declare it
        norm = cp.norm2(self._away)  # type: ignore[attr-defined]  # cvxpy does not declare it
        self._square = cp.Problem(cp.Minimize(square), constraints)
        self._norm = cp.Problem(cp.Minimize(norm), constraints)

    def solve(self, query: Array, options: dict[str, Any]) -> tuple[Array, int]:
        """Return weights (n,), at most d + 1 of them above zero, and the iterations."""
        self._query.value = (query - self.points[0]) / self._scale
        size, weights, steps = self._run(self._square, options)
        if not _NEAR < size < np.inf:
            nearer, others, more = self._run(self._norm, options)
            steps = max(steps, more)
            weights = others if nearer < size else weights
        return _reduce_support(self.points, weights), steps

    def _run(self, problem: cp.Problem, options: dict[str, Any]) -> tuple[float, Array, int]:
        """Return |q - p|, scaled, of the weights (n,) found, the weights, and the iterations."""
        nothing = np.inf, np.zeros(len(self.points)), 0
        with warnings.catch_warnings():
            # "may be inaccurate": the core measures how inaccurate
            warnings.simplefilter("ignore")
            try:
                problem.solve(**options)
            except cp.SolverError:
                return nothing
        stats, solution, away = problem.solver_stats, self._weights.value, self._away.value
        if (
            solution is None
            or away is None
            or not np.isfinite(solution).all()
            or solution.max() <= 0
        ):
            return nothing
        steps = int(stats.num_iters or 0) if stats else 0
        return float(np.linalg.norm(away)), np.maximum(solution, 0.0), steps


def _reduce_support(points: Array, weights: Array) -> Array:
    """Return weights (n,) of the same point, at most d + 1 of them above zero."""
    order = np.argsort(weights, kind="stable")
    total = weights.sum()
    if total == 0:
        return weights
    tail = np.cumsum(weights[order]) <= _TAIL * total
    kept = np.sort(order[~tail])
    reduced = weights[kept] / weights[kept].sum()
    if len(kept) > points.shape[1] + 1:
        reduced = simplex_weights(points[kept], reduced @ points[kept])
    sparse = np.zeros(len(points))
    sparse[kept] = reduced
    return sparse
