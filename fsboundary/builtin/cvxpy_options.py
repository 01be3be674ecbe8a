"""What cvxpy is told to solve with, for the reference finder and the reference hull solver."""

from __future__ import annotations

from typing import Any


def solve_options(solver: str, accuracy: float, max_steps: int) -> dict[str, Any]:
    """Return keyword arguments of cvxpy's ``solve``: Clarabel's tolerances, or the name alone."""
    if solver.upper() != "CLARABEL":
        return {"solver": solver}
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    return {"solver": solver, "max_iter": max_steps, **dict.fromkeys(names, accuracy)}
