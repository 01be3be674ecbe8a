"""The hull checker: it accepts true answers and names the fault of tampered ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fsboundary import Status
from support.flips.case import Array
from support.hulls.case import HullCase
from support.hulls.checker import check_hulls

Answer = dict[str, Array]
OUT, IN, LEFT, BAD = 0, 1, 2, 3


@pytest.fixture
def case() -> HullCase:
    """Return rows that are outside, inside, left out with a copy, and not finite."""
    return HullCase(
        points=np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [9.0, 9.0]]),
        queries=np.array([[4.0, -3.0], [1.0, 1.5], [4.0, 0.0], [np.nan, 0.0]]),
        labels=np.array([0, 0, 0, 0, 1]),
        wanted=np.array([0, 0, 0, 0]),
        leave_out=np.array([-1, -1, 1, -1]),
    )


@pytest.fixture
def answer(case: HullCase) -> Answer:
    """Return the true answer, its support padded to the largest width."""
    result = case.project()
    assert not check_hulls(case, result, reduced=False)
    assert result["status"].tolist() == [*[Status.CONVERGED] * 3, Status.NOT_FINITE]
    assert result["membership"].tolist() == [-1, 1, -1, 0]
    assert result["distance"][[OUT, LEFT]] == pytest.approx([3.0, 4.0])
    width = 4
    for name, padding in (("support", -1), ("weights", 0.0)):
        rows = np.full((len(case.queries), width), padding, dtype=result[name].dtype)
        rows[:, : result[name].shape[1]] = result[name][:, :width]
        result[name] = rows
    return result


def scale(name: str, factor: float, row: int = OUT) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer[name][row] *= factor

    return change


def put(name: str, where: tuple[int, ...], value: float) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer[name][where] = value

    return change


def set_support(row: int, support: list[int], weights: list[float]) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["support"][row, : len(support)] = support
        answer["weights"][row, : len(support)] = weights

    return change


def claim(row: int, distance: float, bound: float) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["distance"][row], answer["lower_bound"][row] = distance, bound
        answer["gap"][row] = distance - bound

    return change


def tilt_normal(answer: Answer) -> None:
    # a unit normal with the query beyond it, but a generator too
    answer["normal"][OUT] = [0.6, -0.8]


def swap(answer: Answer) -> None:
    answer["membership"][[OUT, IN]] = answer["membership"][[IN, OUT]]
    answer["normal"][[OUT, IN]] = answer["normal"][[IN, OUT]]
    answer["offset"][[OUT, IN]] = answer["offset"][[IN, OUT]]


TAMPERED: dict[str, tuple[str, Callable[[Answer], None]]] = {
    "distance": ("distance", scale("distance", 1 + 1e-12)),
    "distance and bound": ("distance", claim(OUT, 2.9, 2.9)),
    "bound by a hair": ("bound", claim(OUT, 3.0, 3.0 + 1e-12)),
    "bound of a point inside": ("bound", put("lower_bound", (IN,), 1e-12)),
    "bound far below": ("converged", scale("lower_bound", 0.5)),
    "gap": ("converged", put("gap", (OUT,), 1e-3)),
    "point": ("point", put("points", (OUT, 0), 3.9)),
    "not the nearest": ("point", set_support(OUT, [0], [1.0])),
    "weights": ("weights", scale("weights", 1 - 1e-11)),
    "negative weight": ("weights", put("weights", (OUT, 0), -1.0)),
    "padding with weight": ("weights", put("weights", (OUT, 3), 1e-3)),
    "left out": ("excluded", set_support(LEFT, [1, 0], [0.5, 0.5])),
    "copy of what is left out": ("excluded", set_support(LEFT, [3, 0], [0.5, 0.5])),
    "another class": ("excluded", set_support(IN, [4, 0, 1], [0.2, 0.4, 0.4])),
    "no such generator": ("unknown", put("support", (OUT, 0), 99)),
    "no support": ("unknown", set_support(OUT, [-1, -1, -1, -1], [0.0] * 4)),
    "named twice": ("repeated", set_support(OUT, [1, 1], [0.5, 0.5])),
    "too many": ("reduced", set_support(OUT, [1, 3, 0], [0.5, 0.5 - 1e-13, 1e-13])),
    "inside": ("membership", swap),
    "undecided": ("membership", put("membership", (IN,), 0)),
    "inside, undone": ("inside undone", put("status", (IN,), Status.INACCURATE)),
    "normal": ("plane", tilt_normal),
    "length of the normal": ("plane", scale("normal", 1 + 1e-12)),
    "offset": ("plane", scale("offset", -1.0, LEFT)),
    "no offset": ("nan", put("offset", (OUT,), np.nan)),
    "status": ("status", put("status", (OUT,), Status.UNDECIDED)),
    "point of a failed row": ("nan", put("status", (OUT,), Status.INACCURATE)),
    "no distance": ("nan", put("distance", (IN,), np.nan)),
    "negative bound": ("nan", put("lower_bound", (IN,), -1.0)),
    "bad row": ("bad row", put("distance", (BAD,), 0.0)),
    "status of a bad row": ("bad row", put("status", (BAD,), Status.INACCURATE)),
    "bound of a bad row": ("bad row", put("lower_bound", (BAD,), 1.0)),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(name: str, case: HullCase, answer: Answer) -> None:
    kind, change = TAMPERED[name]
    change(answer)
    assert kind in {fault.kind for fault in check_hulls(case, answer)}


def test_a_true_bound_of_another_proof_is_no_fault(case: HullCase, answer: Answer) -> None:
    # no field of a failed row proves its bound: another solver decides it
    for name in ("points", "distance", "gap", "normal", "offset"):
        answer[name][OUT] = np.nan
    answer["status"][OUT], answer["membership"][OUT] = Status.INACCURATE, 0
    answer["support"][OUT], answer["weights"][OUT] = -1, 0
    answer["lower_bound"][OUT] = 1e-12
    assert not check_hulls(case, answer, reduced=False)
    answer["lower_bound"][OUT] = 2.9999
    assert {f.kind for f in check_hulls(case, answer)} == {"membership"}
    answer["lower_bound"][OUT] = 3.0001
    assert "bound" in {f.kind for f in check_hulls(case, answer)}
