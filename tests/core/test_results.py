from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status, StatusError


def balls() -> fsb.GuaranteedBalls:
    return fsb.GuaranteedBalls(
        centre=torch.zeros(3, 2, dtype=torch.float64),
        radius=torch.tensor([1.0, torch.inf, torch.nan], dtype=torch.float64),
        norm="l2",
        source=torch.tensor([0, 2, -1]),
        active_class=torch.tensor([1, -1, -1]),
        status=torch.tensor([Status.CONVERGED, Status.UNBOUNDED, Status.NOT_FINITE]),
    )


def test_ok_take_and_to_dict() -> None:
    result = balls()
    assert result.ok.tolist() == [True, True, False]
    first = result.take([0, 1])
    assert first.radius.tolist() == [1.0, float("inf")]
    assert first.norm == "l2"
    assert first.raise_for_status() is first
    assert list(result.to_dict()) == [
        "centre",
        "radius",
        "norm",
        "source",
        "active_class",
        "status",
    ]
    assert result.to("cpu").status.device.type == "cpu"


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        balls().radius = torch.zeros(3)  # type: ignore[misc]  # wrong on purpose


def test_raise_for_status_names_rows_and_gives_advice() -> None:
    with pytest.raises(StatusError, match=r"1 of 3 failed(.|\n)*NOT_FINITE x 1 \(first at 2\)"):
        balls().raise_for_status()


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_advice(status: Status) -> None:
    assert len(status.advice) > 20


def test_final_answers() -> None:
    final = {s for s in Status if s.ok}
    assert final == {
        Status.CONVERGED,
        Status.INFEASIBLE,
        Status.UNBOUNDED,
        Status.DUPLICATE,
        Status.ON_BOUNDARY,
    }


def test_argument_errors_survive_pickling() -> None:
    error = ArgumentError("x", "a", "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "x: got a; wanted b. Fix: c."
