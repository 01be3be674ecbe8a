"""Solution of one quadratic program with a solver of qpsolvers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import qpsolvers
from numpy.typing import NDArray
from scipy import sparse

import fsboundary as fsb

Array = NDArray[np.float64]

# names of each solver's tolerances and limit of steps
_TOLERANCES = {
    "clarabel": ("tol_feas", "tol_gap_abs", "tol_gap_rel"),
    "osqp": ("eps_abs", "eps_rel"),
    "piqp": ("eps_abs", "eps_rel"),
    "proxqp": ("eps_abs", "eps_rel"),
    "scs": ("eps_abs", "eps_rel"),
}
_LIMITS = {"clarabel": "max_iter", "osqp": "max_iter", "proxqp": "max_iter", "scs": "max_iters"}
_MIN_STEPS = {"osqp": 25}
"""OSQP checks its residuals every 25 steps, and does not stop before."""


def check_solver(solver: str) -> None:
    """Raise ArgumentError unless `solver` is available."""
    if solver not in qpsolvers.available_solvers:
        raise fsb.ArgumentError(
            "solver",
            repr(solver),
            f"one of {', '.join(sorted(qpsolvers.available_solvers))}",
            f"choose one of these, or pip install qpsolvers[{solver}]",
        )


def solve(
    solver: str,
    accuracy: float,
    max_steps: int,
    quadratic: Any,
    *,
    equalities: tuple[Any, Array],
    inequalities: tuple[Any, Array] | None = None,
    limits: tuple[Array, Array],
) -> Any:
    """Return qpsolvers' solution of min ½ xᵀPx, whatever its status; None if there is none.

    Parameters
    ----------
    quadratic : sparse (m, m)
    equalities, inequalities : matrix and right-hand side of A x = b and G x <= h
    limits : lower and upper (m,)
    """
    options: dict[str, Any] = dict.fromkeys(_TOLERANCES.get(solver, ()), accuracy)
    if solver in _LIMITS:
        options[_LIMITS[solver]] = max(max_steps, _MIN_STEPS.get(solver, 1))
    form = sparse.csc_matrix if solver in qpsolvers.sparse_solvers else _dense
    less = (None, None) if inequalities is None else (form(inequalities[0]), inequalities[1])
    problem = qpsolvers.Problem(
        form(quadratic),
        np.zeros(quadratic.shape[0]),
        *less,
        form(equalities[0]),
        equalities[1],
        *limits,
    )
    with warnings.catch_warnings():
        # warnings of inaccurate results: the core measures the inaccuracy
        warnings.simplefilter("ignore")
        try:
            solution = qpsolvers.solve_problem(problem, solver, **options)
        except (ValueError, qpsolvers.exceptions.QPError):
            return None
    valid = solution.x is not None and np.isfinite(solution.x).all()
    return solution if valid else None


def num_iterations(solution: Any) -> int:
    """Return the solver's iterations if qpsolvers reports them, else 1."""
    info = solution.extras.get("info")
    for name in ("iterations", "iter"):
        value = solution.extras.get(name, getattr(info, name, None))
        if value is not None:
            return int(value)
    return 1


def _dense(matrix: Any) -> Array:
    return np.asarray(matrix.todense() if sparse.issparse(matrix) else matrix)
