"""Regressions: the smallest case of each false or missing answer that a hunt found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import Status
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips
from support.flips.ball_checker import check_balls, check_nearest
from support.flips.case import Array, Case
from support.flips.checker import check_flips
from support.flips.run_family import draw, examine, examine_flips

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, Norm] = ("l2", "linf")


def case(weight: Any, bias: Any, features: Any, **options: Any) -> Case:
    return Case(
        weight=np.array(weight, float),
        bias=np.array(bias, float),
        features=np.array(features, float),
        **options,
    )


def flips(problem: Case, finder: str | BoundaryFinder = "dual_newton") -> dict[str, Array]:
    answer = problem.flips(finder=finder)
    assert not check_flips(problem, answer)
    return answer


def radius(problem: Case, norm: Norm) -> float:
    balls = problem.balls(norm)
    assert not check_balls(problem, balls, norm)
    return float(balls["radius"][0])


@pytest.mark.parametrize("norm", NORMS)
def test_equal_classes_leave_no_ball(norm: Norm) -> None:
    # was +inf in Linf: nothing decreases the margin, and the margin was already 0
    twins = case([[1, 0], [1, 0], [0, 1]], [0, 0, 0], [[2, 1]], kind="nonnegative")
    assert radius(twins, norm) == 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_tie_in_a_corner_leaves_no_ball(norm: Norm) -> None:
    # was +inf in Linf
    corner = case([[1, 0], [0, 0]], [0, 0], [[0, 1]], kind="nonnegative")
    assert radius(corner, norm) == 0


@pytest.mark.parametrize("seed", [1086, 1204])
def test_a_ball_says_whose_class_it_keeps(seed: int) -> None:
    # logits tie within rounding, and the predicted class depends on the batch
    assert not examine(draw("mixtures", seed), seed)[1]


def test_a_slack_lost_in_rounding_is_not_met() -> None:
    # class 2 is above class 1 where the tie is closest, by 1e-17 compared with logits of 1: it was
    # CONVERGED at distance 1, but the flip point lies at (0, 0)
    answer = flips(case([[1, 0], [-1, 0], [-1, 1e-17]], [1, 1, 1], [[1, 1]]))
    assert answer["status"][0, 0] != Status.CONVERGED or answer["distance"][0, 0] > 1.4


@pytest.mark.parametrize("norm", NORMS)
def test_a_row_on_the_other_side_of_a_tie_has_no_ball(norm: Norm) -> None:
    # both logits round to 2 and the lower index is predicted; exactly, class 1 is above within 1
    assert radius(case([[1, 0], [1, 1e-17]], [1, 1], [[1, 1]]), norm) == 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_class_above_everywhere_leaves_no_ball(norm: Norm) -> None:
    # both logits round to 2**53, so class 0 is predicted; +inf, because equal rows never tie
    assert radius(case([[1.0], [1.0]], [0, 1], [[2.0**53]]), norm) == 0


def test_the_nearest_class_is_never_the_source() -> None:
    # no class can be reached, so all bounds are +inf, that of the source too: the answer was 0
    answer = flips(case([[1.0], [1.0]], [1, 0], [[3.0]], targets="nearest"))
    assert answer["target"][0, 0] == 1
    assert answer["status"][0, 0] == Status.INFEASIBLE


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["unbounded", "nonnegative"])
@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-170, 1.0, 1e100, 1e155, 1e300])
def test_the_size_of_the_weights_changes_no_answer_for_the_worse(
    size: float, kind: Literal["unbounded", "nonnegative"], norm: Norm
) -> None:
    # squares of 1e-170 vanish: the rows counted as equal and the radius was +inf. Squares of
    # 1e155 overflow: every violation over an infinite norm was 0, and the row itself CONVERGED
    scaled = case([[size, 0], [0, size]], [0, 0.5 * size], [[2, 1]], kind=kind)
    assert radius(scaled, norm) <= (0.25 if norm == "linf" else 0.125**0.5)
    answer = flips(scaled)
    if answer["status"][0, 0] == Status.CONVERGED:
        assert answer["distance"][0, 0] == pytest.approx(0.125**0.5)


def test_huge_features_are_not_certified_by_an_infinite_tolerance() -> None:
    # |z| overflowed, so anything was within 1e-9 |z|
    answer = flips(case([[1, 0], [0, 1]], [0, 1e200], [[4e200, 1e200]]))
    assert answer["status"][0, 0] == Status.INACCURATE


def test_an_overflowing_margin_proves_nothing() -> None:
    head = case([[1.7e308], [-1.7e308]], [1e308, -1e308], [[0.5]])
    assert [radius(head, norm) for norm in NORMS] == [0, 0]
    assert flips(head)["status"][0, 0] == Status.INACCURATE


def test_a_radius_beyond_the_largest_number_is_not_infinite() -> None:
    # the tie is at 1e374, which exists
    far = case([[1e-190], [0]], [1e184, 0], [[1.0]])
    assert all(np.isfinite(radius(far, norm)) for norm in NORMS)


def test_an_infinite_bound_is_infeasible_whatever_the_scale() -> None:
    # the scale overflowed as well, and +inf is not above +inf
    box = case([[1e-272], [-1e-272]], [1e138, 0], [[1.0]], kind="box", targets="nearest")
    answer = flips(replace(box, lower=np.array([-2.0]), upper=np.array([2.0])))
    assert answer["status"][0, 0] == Status.INFEASIBLE


@dataclass(frozen=True)
class FixedFinder(BoundaryFinder):
    """Finder that returns the same multiplier for every tie, and no point."""

    multiplier: float

    def find(
        self,
        head: fsb.LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> fsb.FlipPoints:
        fields = unsolved_flips(features, head.predict(features), targets)
        fields["active"] = targets[..., None].clone()
        fields["multipliers"] = torch.full((*targets.shape, 1), self.multiplier).double()
        return fsb.FlipPoints(**fields)


def test_a_distant_face_costs_no_digits_of_the_bound() -> None:
    # the bound was 2.0 at a distance of 1.99999: z - low had lost the last digits of z
    problem = case([[-1.0], [0.0]], [3, 0], [[1.00001]], kind="box")
    problem = replace(problem, lower=np.array([-1e12]), upper=np.array([np.inf]))
    answer = flips(problem, FixedFinder(-1.0))
    assert 1.9999 < answer["lower_bound"][0, 0] <= 1.99999


def test_a_converged_bound_is_never_above_its_distance() -> None:
    # a bound of the first grading was kept beside the distance of the second
    _, faults = examine_flips(draw("columns_of_many_scales", 48))
    assert not faults


def test_nearest_is_infeasible_only_if_every_class_is() -> None:
    # reported for the target only, while the bound of another class was below a million scales
    problem = draw("columns_of_many_scales", 1132)
    answer = flips(problem)
    assert not check_nearest(problem, answer)


@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("finder", ["dual_newton", "closed_form"])
def test_no_rows_and_no_targets(width: int, finder: str) -> None:
    # a (0, T) target was reshaped to (0, -1)
    head = fsb.LinearHead(torch.eye(3), None)
    for rows in (0, 2):
        targets = torch.zeros((rows, width), dtype=torch.int64)
        result = fsb.flip_points(head, torch.zeros(rows, 3), targets, finder=finder)
        assert result.points.shape == (rows, width, 3)


def test_overflowing_differences_do_not_stop_a_batch() -> None:
    # numpy warned, or the linear program refused an infinite coefficient
    head = case(
        [[1.7e308, 1], [-1.7e308, 2], [3, 1e308]],
        [1e308, -1e308, 0],
        [[0.5, 0.5], [1, 0]],
        kind="nonnegative",
    )
    assert flips(head)["status"].shape == (2, 2)
