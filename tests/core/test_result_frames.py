"""Results as pandas tables: one line per entry, statuses by name, numbers bit for bit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.core.results import Comparison, Table
from fsboundary.core.results.base.rows import dimensions
from fsboundary.core.status import Status
from support.results import CLASSES, example

KINDS = [kind for kind in CLASSES if kind is not Comparison]  # which has tables of its own


def entries(kind: type[Table]) -> tuple[str, ...]:
    row = kind._row_dimension()
    return dimensions(kind).get("status", (row,) if row else ())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_each_entry_is_a_line(kind: type[Any], rows: int) -> None:
    result = example(kind, rows)
    frame = result.to_pandas()
    axes, names = entries(kind), dimensions(kind)
    first = next(iter(names)) if "status" not in names else "status"
    shape = tuple(getattr(result, first).shape)[: len(axes)]
    assert len(frame) == int(np.prod(shape))
    positions = [name for name in kind._AXES if name in frame][: len(axes)]
    assert len(positions) == len(axes)
    for line in frame.to_dict("records"):
        at = tuple(line[name] for name in positions)
        for name, dims in names.items():
            further = len(dims) - len([d for d in dims if d in axes])
            if name not in frame or dims[: len(axes)] != axes[: len(dims)] or further:
                continue
            value = getattr(result, name)[at[: len(dims)]].item()
            if name in kind._STATUSES:
                assert line[name] == Status(value).name
            elif name != "verdict":
                assert np.array_equal(line[name], value, equal_nan=True), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_numbers_is_a_column(kind: type[Any]) -> None:
    frame = example(kind).to_pandas()
    axes = entries(kind)
    for name, dims in dimensions(kind).items():
        common = 0
        while common < min(len(dims), len(axes)) and dims[common] == axes[common]:
            common += 1
        rest = dims[common:]
        wanted = (common > 0 or not axes) and len(rest) <= 1 and "d" not in rest
        assert (name in frame) == wanted, name
        if wanted and rest:
            assert all(isinstance(one, list) for one in frame[name])


def test_the_types_of_columns() -> None:
    frame = example(fsb.LabelFlips).to_pandas()
    assert frame["distance"].dtype == np.float64
    assert frame["label"].dtype == np.int64
    assert pandas.api.types.is_string_dtype(frame["status"])
    assert frame["active"][0] == [0, 3]
    assert frame["predicted"][0] == [True, False]
    assert example(fsb.FeatureBatch).to_pandas()["disagrees"].dtype == np.bool_
    assert list(example(fsb.GuaranteedBalls).to_pandas()["norm"]) == ["l2"] * 5
    assert list(example(fsb.RegionFaces).to_pandas()["region"]) == ["UNBOUNDED"] * 5


def test_verdicts_are_words() -> None:
    scores = example(fsb.Scores)
    fields = scores.to_dict()
    fields["verdict"] = torch.tensor([1, 0, -1, 0, 1])
    assert list(fsb.Scores(**fields).to_pandas()["verdict"]) == fsb.Scores(**fields).verdicts
    drift = fsb.Drift(**example(fsb.Drift).to_dict() | {"verdict": torch.tensor(1)})
    assert list(drift.to_pandas()["verdict"]) == ["drifted"]


def test_a_table_leads_back_to_the_rows() -> None:
    g = torch.Generator().manual_seed(0)
    head = fsb.LinearHead(torch.randn(4, 5, generator=g), None)
    z = torch.randn(9, 5, generator=g)
    z[4] = torch.nan
    flips = fsb.flip_points(head, z, "all")
    frame = flips.to_pandas()
    assert len(frame) == 27
    assert set(frame["row"][frame["status"] == "NOT_FINITE"]) == {4}
    near = frame.sort_values("distance").iloc[0]
    point = flips[int(near["row"])].points[0, int(near["entry"])]
    assert torch.linalg.vector_norm(point - z[int(near["row"])].double()) == pytest.approx(
        near["distance"],
        abs=1e-12,  # the norm of about five numbers of size 1 in float64
    )


def test_tables_of_two_spaces() -> None:
    measure = fsb.analysis.Measure(name="inside", question="?", pixels=0.5, features=0.25)
    both = fsb.analysis.TwoSpaces(measures=(measure,), sizes={"images": 3})
    frame = both.to_pandas()
    assert list(frame["pixels"]) == [0.5]
    assert list(frame) == ["name", "question", "pixels", "features", "agreement", "agreement_is"]
    assert len(both) == len(list(both)) == 1
    assert repr(both) == "TwoSpaces(images=3)\n  inside: 0.5 in pixels, 0.25 in features"
    assert "<td" in both._repr_html_()


def test_a_comparison_has_tables_of_its_own() -> None:
    frame = example(Comparison).to_pandas("crossings")
    assert list(frame) == ["method", "image", "crossing", "flip_distance", "status"]


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for kind in CLASSES:
        with pytest.raises(ImportError, match=r"pip install 'fsboundary\[pandas\]'"):
            example(kind).to_pandas()


def test_points_are_not_computed_for_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsboundary.geometry.flips.recomputed._DEFER_BYTES", 0)
    monkeypatch.setattr("fsboundary.geometry.flips.recomputed._DEFER_WIDTH", 1)

    def compute(self: object) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr("fsboundary.geometry.flips.recomputed.DeferredPoints.compute", compute)
    flips = fsb.flip_points(fsb.LinearHead(torch.eye(3), None), torch.rand(4, 3), "all")
    assert len(flips.to_pandas()) == 8
    assert len(repr(flips).splitlines()) < 12
    assert "4 x 2 x 3" in flips._repr_html_()
    assert len(list(flips)) == 4
