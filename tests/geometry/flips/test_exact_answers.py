"""Flip distances and statuses compared with exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fsboundary import Status
from support.flips.case import Case
from support.rational import flip_distance_squared

KINDS = ("unbounded", "nonnegative", "box")


def problem(kind: str, seed: int, whole: bool) -> Case:
    """Return a case of up to four classes and three features, of integers or arbitrary numbers."""
    g = np.random.default_rng([seed, len(kind), whole])
    k, d = int(g.integers(2, 5)), int(g.integers(1, 4))
    if whole:
        w, b = g.integers(-2, 3, (k, d)), g.integers(-2, 3, k)
        z, side = g.integers(0, 3, (1, d)), g.integers(0, 2, (2, d))
    else:
        w, b = g.standard_normal((k, d)), g.standard_normal(k)
        z, side = g.random((1, d)), g.random((2, d))
    case = Case(weight=w * 1.0, bias=b * 1.0, features=z * 1.0, targets="all")
    if kind == "box":
        return replace(case, kind="box", lower=(z - side[0])[0], upper=(z + side[1])[0])
    return replace(case, kind=kind)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_flip_distances_are_exact(kind: str, whole: bool) -> None:
    for seed in range(40):
        case = problem(kind, seed, whole)
        answer = case.flips()
        for column, target in enumerate(answer["target"][0].tolist()):
            truth = flip_distance_squared(case, 0, int(answer["source"][0]), target)
            status, bound, distance = (
                answer[n][0, column] for n in ("status", "lower_bound", "distance")
            )
            where = (seed, target)
            if truth is None:
                assert status == Status.INFEASIBLE, where
                assert bound == np.inf or bound > 1e6, where
            else:
                assert status == Status.CONVERGED, where
                assert Fraction(float(bound)) ** 2 <= truth, where
                assert distance == pytest.approx(float(truth) ** 0.5, rel=1e-7, abs=1e-8), where
