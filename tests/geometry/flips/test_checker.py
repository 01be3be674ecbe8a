"""The flip checker: it accepts true answers and names the fault of tampered ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fsboundary import Status
from support.flips.ball_checker import attack, check_balls, check_nearest
from support.flips.case import Array, Case
from support.flips.checker import check_flips

Answer = dict[str, Array]
CONVERGED, INFEASIBLE = (0, 0), (0, 1)
OUTSIDE, NOT_FINITE = 2, 3


@pytest.fixture
def case() -> Case:
    """Return a case whose first row has a reachable and an unreachable target."""
    return Case(
        weight=np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]),
        bias=np.array([1.0, 0.5, -1.0]),
        features=np.array([[2.0, 1.0], [1.0, 3.0], [-1.0, 1.0], [np.nan, 0.0]]),
        kind="nonnegative",
        targets=np.array([[1, 2], [0, 1], [1, 2], [1, 2]]),
    )


@pytest.fixture
def answer(case: Case) -> Answer:
    """Return the true answer."""
    result = case.flips()
    assert not check_flips(case, result)
    assert result["status"].tolist() == [
        [Status.CONVERGED, Status.INFEASIBLE],
        [Status.CONVERGED, Status.TARGET_IS_SOURCE],
        [Status.OUTSIDE_DOMAIN] * 2,
        [Status.NOT_FINITE] * 2,
    ]
    return result


def scale(name: str, factor: float) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer[name][CONVERGED] *= factor

    return change


def put(name: str, where: tuple[int, ...], value: float) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer[name][where] = value

    return change


def raise_bound(answer: Answer) -> None:
    # bound, distance and gap agree with each other; only the multipliers contradict them
    for name in ("lower_bound", "distance"):
        answer[name][CONVERGED] *= 1 + 1e-10
    answer["gap"][CONVERGED] = answer["distance"][CONVERGED] - answer["lower_bound"][CONVERGED]


def move_along_the_tie(answer: Answer) -> None:
    answer["points"][CONVERGED] += 0.01


def forget_the_proof(answer: Answer) -> None:
    answer["multipliers"][INFEASIBLE] = 0.0
    answer["active"][INFEASIBLE] = -1


def claim_unreachable(answer: Answer) -> None:
    for name, value in (("points", np.nan), ("violation", np.nan), ("gap", 0.0)):
        answer[name][CONVERGED] = value
    answer["distance"][CONVERGED] = answer["lower_bound"][CONVERGED] = np.inf
    answer["status"][CONVERGED] = Status.INFEASIBLE


TAMPERED: dict[str, tuple[str, Callable[[Answer], None]]] = {
    "distance": ("converged", scale("distance", 1 + 1e-12)),
    "bound above the distance": ("converged", scale("lower_bound", 1 + 1e-6)),
    "bound far below": ("converged", scale("lower_bound", 0.5)),
    "bound by a hair": ("bounds", raise_bound),
    "bound of the multipliers": ("recheckable", raise_bound),
    "point off the tie": ("converged", put("points", (0, 0, 1), 1.6)),
    "point on the tie": ("converged", move_along_the_tie),
    "gap": ("converged", put("gap", CONVERGED, 1e-3)),
    "multiplier": ("recheckable", scale("multipliers", 0.5)),
    "proof": ("bounds", forget_the_proof),
    "unreachable": ("bounds", claim_unreachable),
    "near, none within": ("infeasible", put("lower_bound", INFEASIBLE, 1e3)),
    "multiplier sign": ("layout", put("active", (0, 0, 0), 2)),
    "source": ("source", put("source", (0,), 1)),
    "source of a bad row": ("source", put("source", (NOT_FINITE,), 0)),
    "target": ("target", put("target", CONVERGED, 2)),
    "status outside": ("status", put("status", (OUTSIDE, 0), Status.CONVERGED)),
    "status not finite": ("status", put("status", (NOT_FINITE, 0), Status.INACCURATE)),
    "status of the source": ("status", put("status", (1, 1), Status.INFEASIBLE)),
    "undecided": ("status", put("status", CONVERGED, Status.UNDECIDED)),
    "point of a failed entry": ("nan", put("points", (OUTSIDE, 0, 0), 1.0)),
    "distance of a failed entry": ("nan", put("distance", (OUTSIDE, 0), 0.0)),
    "no distance": ("nan", put("distance", CONVERGED, np.nan)),
    "negative bound": ("nan", put("lower_bound", CONVERGED, -1.0)),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(name: str, case: Case, answer: Answer) -> None:
    kind, change = TAMPERED[name]
    change(answer)
    assert kind in {fault.kind for fault in check_flips(case, answer)}


def test_a_violation_is_recomputed() -> None:
    # class 2 is above by 1e-3 at the tie of 0 and 1, and the answer says 0
    case = Case(
        weight=np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),
        bias=np.array([0.0, 0.0, -1.0 + 1e-3]),
        features=np.array([[1.0, 1.0]]),
        targets=np.array([[1]]),
    )
    answer = case.flips(finder="closed_form")
    assert answer["status"][0, 0] == Status.INACCURATE
    for name, value in (("distance", 1.0), ("lower_bound", 1.0), ("gap", 0), ("violation", 0)):
        answer[name][0, 0] = value
    answer["points"][0, 0] = [0.0, 1.0]
    answer["status"][0, 0] = Status.CONVERGED
    assert {fault.kind for fault in check_flips(case, answer)} == {"converged"}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_ball_too_large_is_detected(case: Case, norm: str) -> None:
    balls = case.balls(norm)  # type: ignore[arg-type]  # str of the parametrisation
    assert not check_balls(case, balls, norm)
    balls["radius"][0] *= 1 + 1e-10
    assert {f.kind for f in check_balls(case, balls, norm)} == {f"{norm} radius"}
    balls["radius"][0] *= 1.01
    assert attack(case, balls, norm, 4, np.random.default_rng(0))
    balls["radius"][0], balls["status"][0] = np.inf, Status.UNBOUNDED
    balls["active_class"][0] = -1
    assert {f.kind for f in check_balls(case, balls, norm)} == {f"{norm} radius"}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_ball_of_another_class_is_detected(case: Case, norm: str) -> None:
    balls = case.balls(norm)  # type: ignore[arg-type]  # str of the parametrisation
    balls["source"][0] = balls["active_class"][0]
    assert {f.kind for f in check_balls(case, balls, norm)} == {"source", f"{norm} radius"}
    assert attack(case, balls, norm, 4, np.random.default_rng(0))


def test_the_wrong_nearest_class_is_detected() -> None:
    case = Case(
        weight=np.eye(3), bias=np.zeros(3), features=np.array([[3.0, 2.0, 0.0]]), targets="nearest"
    )
    answer = case.flips()
    assert answer["target"][0, 0] == 1
    assert not check_nearest(case, answer)
    second = Case(
        weight=case.weight, bias=case.bias, features=case.features, targets=np.array([[2]])
    ).flips()
    assert check_nearest(case, second)
