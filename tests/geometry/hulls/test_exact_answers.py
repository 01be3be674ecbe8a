"""Hull distances and memberships compared with exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fsboundary import Status
from support.flips.case import Array
from support.hulls.case import HullCase
from support.hulls.checker import check_hulls
from support.hulls.exact import nearest_weights, shifted


def problem(seed: int, whole: bool) -> HullCase:
    """Return a case of up to ten points and four coordinates, of integers or arbitrary numbers."""
    g = np.random.default_rng([seed, whole])
    n, d = int(g.integers(1, 11)), int(g.integers(1, 5))
    if whole:
        points, queries = g.integers(-2, 3, (n, d)), g.integers(-3, 4, (4, d))
        return HullCase(points=points * 1.0, queries=queries * 1.0)
    return HullCase(points=g.standard_normal((n, d)), queries=1.5 * g.standard_normal((4, d)))


def exact_answer(case: HullCase, row: int) -> tuple[Array, Fraction]:
    """Return the exact weights and the squared distance of one row."""
    away = shifted(case.points, case.queries[row], True)
    weights = nearest_weights(away)
    nearest = (weights[:, None] * away).sum(axis=0)
    # the optimality conditions, which hold for no other point
    assert min(weights) >= 0
    assert weights.sum() == 1
    assert ((away @ nearest) >= (nearest * nearest).sum()).all()
    return weights, (nearest * nearest).sum()


@pytest.mark.parametrize("whole", [True, False])
def test_hull_distances_are_exact(whole: bool) -> None:
    for seed in range(30):
        case = problem(seed, whole)
        answer = case.project()
        assert not check_hulls(case, answer)
        for row in range(len(case.queries)):
            _, squared = exact_answer(case, row)
            assert answer["status"][row] == Status.CONVERGED, (seed, row)
            assert Fraction(float(answer["lower_bound"][row])) ** 2 <= squared, (seed, row)
            assert answer["membership"][row] == (1 if squared == 0 else -1), (seed, row)
            assert answer["distance"][row] == pytest.approx(
                float(squared) ** 0.5, rel=1e-6, abs=1e-8
            ), (seed, row)


def test_longdouble_finds_what_fractions_find() -> None:
    for seed in range(10):
        case = problem(seed, False)
        for row in range(len(case.queries)):
            away = shifted(case.points, case.queries[row], False)
            nearest = (nearest_weights(away)[:, None] * away).sum(axis=0)
            assert float((nearest * nearest).sum()) == pytest.approx(
                float(exact_answer(case, row)[1]), rel=1e-12, abs=1e-24
            )
