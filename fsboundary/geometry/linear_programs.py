"""Linear programs, solved by HiGHS through scipy. The solutions are not certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float64
from scipy import sparse
from scipy.optimize import linprog

from fsboundary.geometry.exact_arithmetic import Array

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""The tightest that HiGHS accepts: solutions are starting points of proofs in float64."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LPSolution:
    """A primal point and dual multipliers of a linear program.

    ``cost = -ineq_matrixᵀ ineq_duals + eq_matrixᵀ eq_duals + lower_duals - upper_duals``

    Attributes
    ----------
    x : array (n,)
    value : float
        ``cost.x``.
    ineq_duals : array (m,)
        Nonnegative multipliers.
    eq_duals : array (e,)
        Multipliers of either sign.
    lower_duals, upper_duals : array (n,)
        Nonnegative multipliers; 0 where there is no limit.
    """

    x: Array
    value: float
    ineq_duals: Array
    eq_duals: Array
    lower_duals: Array
    upper_duals: Array


def solve_lp(
    cost: Float64[Array, " n"],
    lower: Float64[Array, " n"],
    upper: Float64[Array, " n"],
    *,
    ineq_matrix: Float64[Array, "m n"] | sparse.csc_array | None = None,
    ineq_rhs: Float64[Array, " m"] | None = None,
    eq_matrix: Float64[Array, "e n"] | None = None,
    eq_rhs: Float64[Array, " e"] | None = None,
    method: Literal["highs", "highs-ds", "highs-ipm"] = "highs-ds",
) -> LPSolution | None:
    """Minimise ``cost.x`` subject to linear constraints and limits of x.

    The constraints are ``ineq_matrix x <= ineq_rhs`` and ``eq_matrix x = eq_rhs``.

    Parameters
    ----------
    cost : array (n,)
    lower, upper : array (n,)
        Limits of x, infinite where there is none.
    ineq_matrix, ineq_rhs : array (m, n), (m,), optional
    eq_matrix, eq_rhs : array (e, n), (e,), optional
    method : str
        Method of :func:`scipy.optimize.linprog`.

    Returns
    -------
    LPSolution or None
        None where a number of the program is not finite, or where HiGHS found no optimum: the
        program is infeasible or unbounded, or the solver failed. The reason is not reported
        because none of these is a proof.
    """
    entries = ineq_matrix.data if isinstance(ineq_matrix, sparse.csc_array) else ineq_matrix
    numbers = (cost, entries, ineq_rhs, eq_matrix, eq_rhs)
    if not all(np.isfinite(part).all() for part in numbers if part is not None):
        return None
    result = linprog(
        cost,
        A_ub=ineq_matrix,
        b_ub=ineq_rhs,
        A_eq=eq_matrix,
        b_eq=eq_rhs,
        bounds=np.column_stack([lower, upper]),
        method=method,
        options=_OPTIONS,
    )
    if result.status != 0 or not np.isfinite(result.x).all():
        return None
    return LPSolution(
        x=result.x,
        value=float(result.fun),
        ineq_duals=np.maximum(-result.ineqlin.marginals, 0.0),
        eq_duals=result.eqlin.marginals,
        lower_duals=np.where(np.isfinite(lower), np.maximum(result.lower.marginals, 0.0), 0.0),
        upper_duals=np.where(np.isfinite(upper), np.maximum(-result.upper.marginals, 0.0), 0.0),
    )
