"""Bad input of hull_projection: messages of rejected arguments, and rows that fail alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fsboundary import FsboundaryError, HeadMismatchError, PluginError, Status
from fsboundary.banks import FeatureBank
from fsboundary.banks.disk import layout
from fsboundary.builtin.hull_solvers.nnls import Nnls
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FeatureBatch, HullProjection
from fsboundary.hulls import class_hull_distances, hull_projection
from fsboundary.plugins.interfaces import HullSolver
from support.banks import small
from support.hulls.oracles import cloud

SOLVERS = ("active_set", "away_steps", "cvxpy", "interior_point", "nnls")


def _project(bank: object = None, features: object = None, **options: Any) -> HullProjection:
    """Project two rows on the hull of five, or with the arguments of the case."""
    own = FeatureBank(cloud(5, 3, 0), [0, 0, 1, 1, 2]) if bank is None else bank
    z = cloud(2, 3, 1) if features is None else features
    return hull_projection(own, z, **options)  # type: ignore[arg-type]  # the wrong type is what is tested


def _whole(*values: int) -> Tensor:
    return torch.tensor(values)


REJECTED: list[tuple[Callable[[], object], str]] = [
    (lambda: _project(bank=cloud(5, 3, 0)), "bank: got a Tensor; wanted a FeatureBank"),
    (
        lambda: _project(FeatureBank(torch.zeros(0, 3))),
        r"features: got shape \(0, 3\); wanted.*not empty",
    ),
    (
        lambda: _project(features=[[0.0] * 3]),
        r"features: got a list; wanted a float tensor \(B, 3\)",
    ),
    (lambda: _project(features=_whole(1, 2, 3)[None]), "features: got dtype torch.int64.*double"),
    (lambda: _project(features=cloud(1, 3, 1)[0]), r"features: got shape \(3,\).*\[None\]"),
    (lambda: _project(features=cloud(2, 4, 1)), r"got shape \(2, 4\); wanted.*\(B, 3\).*layer"),
    (lambda: _project(labels=torch.zeros(2)), r"labels: got dtype torch.float32; wanted.*\(2,\)"),
    (lambda: _project(labels=_whole(0)), r"labels: got shape \(1,\).*one class per row"),
    (lambda: _project(labels=[0, 1]), r"labels: got a list; wanted an integer tensor"),
    (lambda: _project(labels=_whole(0, 3)), r"labels: got \[3\], which no row has.*0, 1, 2"),
    (lambda: _project(labels=_whole(-2, 0)), r"labels: got \[-2\], which no row has"),
    (lambda: _project(leave_out=torch.ones(2)), "leave_out: got dtype torch.float32"),
    (lambda: _project(leave_out=_whole(0, 1)[:, None]), r"leave_out: got shape \(2, 1\)"),
    (
        lambda: _project(leave_out=_whole(-2, 0)),
        "leave_out: got rows from -2 to 0; wanted.* of rows -1 to 4",
    ),
    (
        lambda: _project(labels=_whole(1, 2), leave_out=_whole(2, 4)),
        "leave_out: got all 1 generators of the hull of row 1; wanted at least one.*drop such",
    ),
    (
        lambda: _project(FeatureBank(torch.ones(4, 3)), leave_out=_whole(-1, 2)),
        "got all 4 generators of the hull of row 1",  # four copies are one point
    ),
    (lambda: _project(tolerance=0.0), r"tolerance: got 0.0; wanted a number in \(0, 1\)"),
    (lambda: _project(tolerance=float("nan")), "tolerance: got nan"),
    (lambda: _project(max_steps=0), "max_steps: got 0; wanted an integer, at least 1"),
    (lambda: _project(solver="nnsl"), "hull_solver: got.*nnsl.*nnls"),
    (lambda: _project(solver=Nnls), r"hull_solver: got the class Nnls.*call it: Nnls\(\)"),
    (
        lambda: class_hull_distances(FeatureBank(cloud(5, 3, 0)), cloud(2, 3, 1)),
        "labels: got a bank without labels",
    ),
    (lambda: class_hull_distances(_labelled(), cloud(2, 4, 1)), r"got shape \(2, 4\)"),
]


def _labelled() -> FeatureBank:
    return FeatureBank(cloud(4, 3, 0), [0, 0, 1, 1])


@pytest.mark.parametrize(("call", "message"), REJECTED)
def test_malformed_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "options", [{}, {"labels": _whole(0, 1, 0, 1), "leave_out": _whole(0, -1, 1, 2)}]
)
def test_rows_that_are_not_finite_fail_alone(solver: str, options: dict[str, Tensor]) -> None:
    bank, queries = FeatureBank(cloud(12, 3, 0), [0, 1] * 6), 3 * cloud(4, 3, 1)
    want = hull_projection(bank, queries, solver=solver, **options)
    queries[1, 0], queries[2, 2] = torch.nan, -torch.inf
    found = hull_projection(bank, queries, solver=solver, **options)
    assert found.status.tolist() == [0, Status.NOT_FINITE, Status.NOT_FINITE, 0]
    bad = found.take([1, 2])
    for value in (bad.points, bad.distance, bad.gap, bad.normal, bad.offset):
        assert torch.isnan(value).all()
    assert (bad.lower_bound == 0).all()
    assert (bad.support == -1).all()
    assert (bad.membership == 0).all()
    # each is within the tolerance of the true distance
    torch.testing.assert_close(found.distance[[0, 3]], want.distance[[0, 3]], rtol=2e-6, atol=2e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_rows_and_only_bad_rows(solver: str) -> None:
    bank = FeatureBank(cloud(5, 3, 0))
    none = hull_projection(bank, torch.zeros(0, 3), solver=solver)
    assert none.points.shape == (0, 3)
    assert none.support.shape == none.weights.shape == (0, 1)
    bad = hull_projection(bank, torch.full((2, 3), torch.nan), solver=solver)
    assert (bad.status == Status.NOT_FINITE).all()


def _mismatched() -> tuple[FeatureBank, FeatureBatch]:
    """Return a bank and a batch of models that differ only in their heads."""
    bank = small.space().bank(small.loader())
    other = small.fsb.FeatureSpace(small.model(seed=1))
    return bank, other.extract(small.images(3))


@pytest.mark.parametrize("call", [hull_projection, class_hull_distances])
def test_a_bank_of_another_head_is_rejected(call: Callable[[FeatureBank, object], object]) -> None:
    bank, batch = _mismatched()
    message = (
        f"another head, extractor or layer than the bank.*{batch.fingerprint}.*{bank.fingerprint}"
    )
    with pytest.raises(HeadMismatchError, match=message):
        call(bank, batch)


def test_a_bank_of_another_head_is_rejected_after_a_round_trip(tmp_path: Path) -> None:
    bank, batch = _mismatched()
    bank.save(tmp_path / "bank")
    with pytest.raises(HeadMismatchError, match="another head"):
        hull_projection(FeatureBank.open(tmp_path / "bank"), batch)


def test_without_a_fingerprint_on_one_side_the_width_decides() -> None:
    bank, batch = _mismatched()
    want = hull_projection(bank, batch.features)
    for own, features in (
        (FeatureBank(bank.features), batch),
        (bank, replace(batch, fingerprint="")),
        (bank, replace(batch, fingerprint=bank.fingerprint)),
    ):
        found = hull_projection(own, features)
        torch.testing.assert_close(found.distance, want.distance, rtol=1e-9, atol=1e-12)
    with pytest.raises(ArgumentError, match=r"features: got shape \(3, 4\); wanted.*\(B, 2\)"):
        hull_projection(FeatureBank(cloud(5, 2, 0)), batch)


@pytest.mark.parametrize("solver", ["active_set", "away_steps", "nnls"])
@pytest.mark.parametrize(
    "change",
    [lambda raw: raw[:-20], lambda raw: raw[:9] + bytes([raw[9] ^ 1]) + raw[10:]],
    ids=["truncated", "changed"],
)
def test_a_damaged_chunk_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
    solver: str,
) -> None:
    monkeypatch.setattr(layout, "_ROWS", 8)
    path = tmp_path / "bank"
    small.space().bank(small.loader(), path)
    chunk = path / "features" / "c" / "2" / "0"
    bank, queries = FeatureBank.open(path), cloud(2, 4, 1)
    hull_projection(bank, queries, solver=solver)
    chunk.write_bytes(change(chunk.read_bytes()))
    wanted = r"array 'features', chunk 2 \(rows 16 to 23\) is damaged.*Restore it from a copy"
    for damaged in (bank, FeatureBank.open(path)):
        with pytest.raises(FsboundaryError, match=wanted):
            hull_projection(damaged, queries, solver=solver)


class _Failing(HullSolver):
    """A solver that raises in the given method."""

    def __init__(self, where: str) -> None:
        self.where = where

    def prepare(self, points: Any) -> Any:
        if self.where == "prepare":
            raise ZeroDivisionError("no points")
        return points

    def project(self, state: Any, queries: Tensor, **_: Any) -> HullProjection:
        raise ZeroDivisionError("no answer")


@pytest.mark.parametrize(("where", "why"), [("prepare", "no points"), ("project", "no answer")])
def test_a_solver_that_raises_is_named(where: str, why: str) -> None:
    message = f"hull solver _Failing raised ZeroDivisionError: {why}"
    with pytest.raises(PluginError, match=message):
        _project(solver=_Failing(where))
