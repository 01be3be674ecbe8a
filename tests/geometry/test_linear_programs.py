"""The wrapper of HiGHS: optimum, multipliers, and None for everything else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fsboundary.geometry.linear_programs import minimise


@pytest.mark.parametrize("packed", [False, True])
def test_multipliers_balance_the_cost(packed: bool) -> None:
    g = np.random.default_rng(0)
    rows, inside = g.standard_normal((12, 5)), g.random(5)
    right = rows @ inside + g.random(12)
    equal = g.standard_normal((1, 5))
    cost, low, high = g.standard_normal(5), np.full(5, -1.0), np.array([2.0] * 4 + [np.inf])
    found = minimise(
        cost,
        low,
        high,
        rows=sparse.csc_array(rows) if packed else rows,
        right=right,
        equal=equal,
        equal_right=equal @ inside,
    )
    assert found is not None
    balance = -rows.T @ found.on_rows + equal.T @ found.on_equal + found.on_lower - found.on_upper
    np.testing.assert_allclose(balance, cost, atol=1e-9)
    for multipliers in (found.on_rows, found.on_lower, found.on_upper):
        assert (multipliers >= 0).all()
    dual = -right @ found.on_rows + (equal @ inside) @ found.on_equal
    dual += low @ found.on_lower - high[:4] @ found.on_upper[:4]
    assert found.value == pytest.approx(cost @ found.x)
    assert found.value == pytest.approx(dual)


def test_none_without_an_optimum_or_with_numbers_that_are_not_finite() -> None:
    one, none = np.ones(1), np.full(1, np.inf)
    assert minimise(one, -none, none) is None  # unbounded
    assert minimise(one, -none, none, rows=np.array([[1.0], [-1.0]]), right=-np.ones(2)) is None
    assert minimise(one, -none, none, rows=-np.ones((1, 1)), right=np.full(1, np.nan)) is None
    assert minimise(np.full(1, np.inf), one, 2 * one) is None
