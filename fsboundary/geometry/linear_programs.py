"""Linear programs, proposed by HiGHS through scipy. What it returns proves nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

Array = NDArray[np.float64]

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""The tightest that HiGHS takes: the answers are starting points of proofs in float64."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """A point and multipliers: ``cost = -rowsᵀ on_rows + equalᵀ on_equal + on_lower - on_upper``.

    Attributes
    ----------
    x : array (n,)
    value : float
        ``cost.x``.
    on_rows : array (m,)
        Not negative.
    on_equal : array (e,)
        Of either sign.
    on_lower, on_upper : array (n,)
        Not negative; 0 where there is no limit.
    """

    x: Array
    value: float
    on_rows: Array
    on_equal: Array
    on_lower: Array
    on_upper: Array


def minimise(
    cost: Array,
    lower: Array,
    upper: Array,
    *,
    rows: Array | sparse.csc_array | None = None,
    right: Array | None = None,
    equal: Array | None = None,
    equal_right: Array | None = None,
    method: Literal["highs", "highs-ds", "highs-ipm"] = "highs-ds",
) -> Proposal | None:
    """Minimise ``cost.x`` with ``rows x <= right``, ``equal x = equal_right`` and limits of x.

    Parameters
    ----------
    cost : array (n,)
    lower, upper : array (n,)
        Infinite where there is no limit.
    rows, right : array (m, n), (m,), optional
    equal, equal_right : array (e, n), (e,), optional
    method : str
        Of :func:`scipy.optimize.linprog`.

    Returns
    -------
    Proposal or None
        None where a number of the program is not finite, or where HiGHS found no optimum: the
        program is infeasible or unbounded, or it gave up. Which of these is not told, because
        none is a proof.
    """
    entries = rows.data if isinstance(rows, sparse.csc_array) else rows
    numbers = (cost, entries, right, equal, equal_right)
    if not all(np.isfinite(part).all() for part in numbers if part is not None):
        return None
    found = linprog(
        cost,
        A_ub=rows,
        b_ub=right,
        A_eq=equal,
        b_eq=equal_right,
        bounds=np.column_stack([lower, upper]),
        method=method,
        options=_OPTIONS,
    )
    if found.status != 0 or not np.isfinite(found.x).all():
        return None
    return Proposal(
        x=found.x,
        value=float(found.fun),
        on_rows=np.maximum(-found.ineqlin.marginals, 0.0),
        on_equal=found.eqlin.marginals,
        on_lower=np.where(np.isfinite(lower), np.maximum(found.lower.marginals, 0.0), 0.0),
        on_upper=np.where(np.isfinite(upper), np.maximum(-found.upper.marginals, 0.0), 0.0),
    )
