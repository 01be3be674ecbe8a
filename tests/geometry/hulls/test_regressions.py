"""Regressions: each false or unfounded certificate of a hull that a hunt found, minimised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import Status
from fsboundary.core.protocols import PointSet
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls
from support.flips.case import Array
from support.hulls.case import HullCase
from support.hulls.checker import check_hulls
from support.hulls.run_family import draw_hulls
from support.hulls.sly import Sly


def hull(points: object, queries: object, solver: str | HullSolver = "active_set") -> dict:  # type: ignore[type-arg]  # as Case.flips
    case = HullCase(points=np.array(points, float), queries=np.array(queries, float))
    answer = case.project(solver)
    faults = check_hulls(case, answer, reduced=solver == "active_set")
    assert not faults
    return answer


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e-150, 1e150, 1e160, 1e300])
def test_squares_that_vanish_or_overflow_prove_nothing(size: float) -> None:
    # at 1e-170 the distance was 0, and inside; at 1e160 it was inf, and inside
    answer = hull([[size, 0], [2 * size, size]], [[4 * size, 5 * size]])
    assert answer["membership"][0] != 1
    if answer["status"][0] == Status.CONVERGED:
        assert answer["distance"][0] / size == pytest.approx(20**0.5)


def test_a_far_query_has_a_bound() -> None:
    # the distance was inf and the bound NaN
    answer = hull([[1e142], [2e142]], [[1e155]])
    assert answer["membership"][0] != 1


@dataclass(frozen=True)
class FixedSolver(HullSolver):
    """Solver that returns the same support and weights for every row."""

    support: tuple[int, ...]
    weights: tuple[float, ...]

    def prepare(self, points: PointSet) -> None:
        return None

    def project(
        self,
        state: None,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> fsb.HullProjection:
        fields = unsolved_hulls(queries)
        fields["support"] = torch.tensor([self.support] * len(queries))
        fields["weights"] = torch.tensor([self.weights] * len(queries), dtype=torch.float64)
        return fsb.HullProjection(**fields)


def test_points_that_overflow_single_precision_are_priced_anyway() -> None:
    # inf - inf in single precision: the second point dropped out of the candidates, and the bound
    # of 1e38 was above the distance to the segment
    answer = hull([[0, 0], [1e39, 1e38]], [[-1e36, 1e38]], FixedSolver((0,), (1.0,)))
    assert answer["lower_bound"][0] < 9.97e37


def test_weights_too_small_to_be_divided_are_not_a_point_of_the_hull() -> None:
    # they summed to 2e-16, so the origin was inside
    answer = hull([[1.0], [2.0]], [[0.0]], FixedSolver((0,), (5e-324,)))
    assert answer["membership"][0] == -1


@pytest.mark.parametrize("weights", [(1.7e308, 1.7e308), (1e-310, 1e-310)])
def test_weights_that_overflow_or_underflow_sum_to_one(weights: tuple[float, float]) -> None:
    # the sum was inf, so two points were listed and neither had a weight
    answer = hull([[1.0], [2.0]], [[0.0]], FixedSolver((0, 1), weights))
    assert answer["weights"].sum() == pytest.approx(1, abs=1e-12)


def test_a_row_without_weights_is_not_outside_by_a_bound_of_zero() -> None:
    # outside by a bound that was not reported
    answer = hull([[1.0], [2.0]], [[-1.0]], FixedSolver((7,), (1.0,)))
    assert (answer["membership"][0] == -1) == (answer["lower_bound"][0] > 0)


def test_a_generator_is_listed_once() -> None:
    answer = hull([[1.0], [2.0]], [[0.0]], FixedSolver((0, 1, 0), (0.5, 0.0, 0.5)))
    assert sorted(answer["support"][0][answer["support"][0] >= 0]) == [0]


def test_grading_uses_no_wrong_pass_of_a_solver() -> None:
    # single precision cannot distinguish these, and the pass was taken as exact: the bound was
    # 1 - 7e-9
    answer = hull([[1 + 1e-9 * i] for i in range(50)], [[2.0]], Sly())
    assert answer["lower_bound"][0] <= 1 - 49e-9


@pytest.mark.parametrize(
    "points", [[[0.0], [0.0]], [[1, 0], [1, 0], [0, 1], [0, 1]], [[1, 0], [0.5, 0.5], [0, 1]]]
)
def test_a_support_has_no_more_points_than_coordinates(points: list[list[float]]) -> None:
    # copies shared the weight: they are affinely dependent, though not more than d + 1
    answer = hull(points, np.full((1, len(points[0])), 2.0))
    assert (answer["support"] >= 0).sum() <= len(points[0])


def passes(case: HullCase) -> Array:
    answer = case.project()
    assert not check_hulls(case, answer)
    return answer["steps"]


def test_rows_that_make_no_progress_end() -> None:
    # a query 1e-8 from the hull and a tolerance of 6e-9: the same generators joined and left in
    # each of 200 passes
    assert passes(draw_hulls("sparse_features", 5)).max() < 20


def test_a_row_barely_outside_keeps_no_simplex() -> None:
    # outside by 2e-11, and the solver took that for inside and kept d + 1 generators
    case = draw_hulls("leave_one_out", 1029)
    answer = case.project("active_set")
    assert not check_hulls(case, answer, reduced=True)
    assert answer["membership"][4] == -1
    assert (answer["support"][4] >= 0).sum() == case.points.shape[1]
