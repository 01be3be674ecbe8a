"""The HiGHS wrapper: optimum, multipliers, and None for everything else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fsboundary.geometry.linear_programs import solve_lp


@pytest.mark.parametrize("packed", [False, True])
def test_multipliers_balance_the_cost(packed: bool) -> None:
    g = np.random.default_rng(0)
    rows, inside = g.standard_normal((12, 5)), g.random(5)
    right = rows @ inside + g.random(12)
    equal = g.standard_normal((1, 5))
    cost, low, high = g.standard_normal(5), np.full(5, -1.0), np.array([2.0] * 4 + [np.inf])
    solution = solve_lp(
        cost,
        low,
        high,
        ineq_matrix=sparse.csc_array(rows) if packed else rows,
        ineq_rhs=right,
        eq_matrix=equal,
        eq_rhs=equal @ inside,
    )
    assert solution is not None
    balance = (
        -rows.T @ solution.ineq_duals
        + equal.T @ solution.eq_duals
        + solution.lower_duals
        - solution.upper_duals
    )
    np.testing.assert_allclose(balance, cost, atol=1e-9)
    for multipliers in (solution.ineq_duals, solution.lower_duals, solution.upper_duals):
        assert (multipliers >= 0).all()
    dual = -right @ solution.ineq_duals + (equal @ inside) @ solution.eq_duals
    dual += low @ solution.lower_duals - high[:4] @ solution.upper_duals[:4]
    assert solution.value == pytest.approx(cost @ solution.x)
    assert solution.value == pytest.approx(dual)


def test_none_without_an_optimum_or_with_numbers_that_are_not_finite() -> None:
    one, none = np.ones(1), np.full(1, np.inf)
    assert solve_lp(one, -none, none) is None  # unbounded
    assert (
        solve_lp(one, -none, none, ineq_matrix=np.array([[1.0], [-1.0]]), ineq_rhs=-np.ones(2))
        is None
    )
    assert (
        solve_lp(one, -none, none, ineq_matrix=-np.ones((1, 1)), ineq_rhs=np.full(1, np.nan))
        is None
    )
    assert solve_lp(np.full(1, np.inf), one, 2 * one) is None
