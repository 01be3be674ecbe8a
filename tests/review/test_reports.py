"""Comparison of the JSON files of reports, and what is no such file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fsboundary import DataError, cli
from fsboundary.review.reports import compare_reports, comparison_text
from fsboundary.scores.set_scores import wilson_interval

NAMES = ["cat", "dog", "owl"]


def report(predicted: list[int], labels: list[int | None], **other: Any) -> dict[str, Any]:
    """Return the numbers of a report, of which only those that are compared."""
    files = other.get("files", [None] * len(predicted))
    entries = [
        {"row": i, "file": f, "predicted": p, "label": t}
        for i, (f, p, t) in enumerate(zip(files, predicted, labels, strict=True))
    ]
    states = other.get("states", ["facet", "facet", "facet"])
    cells = [
        {"pair": list(p), "whole": s} for p, s in zip([(0, 1), (0, 2), (1, 2)], states, strict=True)
    ]
    return {
        "generator": "fsboundary report",
        "schema": 1,
        "class_names": other.get("names", NAMES),
        "extremes": {"all": entries},
        "division": {"cells": cells},
        "overview": {"distance": {"median": 3.0}, "feature_spread": 1.5},
    }


def write(folder: Path, *reports: dict[str, Any]) -> list[Path]:
    paths = [folder / f"{name}.json" for name in "abcdef"[: len(reports)]]
    for path, numbers in zip(paths, reports, strict=True):
        path.write_text(json.dumps(numbers), encoding="utf-8")
    return paths


def test_images_and_neighbours_that_changed_are_counted_by_kind(tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, None]
    before = report([0, 0, 2, 1, 1], labels, states=["facet", "none", "facet"])
    after = report([0, 1, 1, 2, 0], labels, states=["none", "facet", "undecided"])
    found = compare_reports(write(tmp_path, before, after))
    first, second = found["reports"]
    assert (first["accuracy"], second["accuracy"]) == (0.5, 0.5)
    assert first["changed"] == first["gained"] == first["lost"] == []
    assert first["interval"] == wilson_interval(torch.tensor(0.5), 4).tolist()
    assert second["changed"] == [
        {"image": 1, "label": 1, "before": 0, "after": 1},
        {"image": 2, "label": 2, "before": 2, "after": 1},
        {"image": 3, "label": 0, "before": 1, "after": 2},
        {"image": 4, "label": None, "before": 1, "after": 0},
    ]
    assert (second["gained"], second["lost"]) == ([[0, 2]], [[0, 1]])
    assert second["relative_distance"] == 2.0
    text = comparison_text(found)
    assert "4 images (1 fixed, 1 broken, 1 wrong in both, 1 no label)" in text
    assert "1: cat -> dog (fixed)" in text
    assert "gained: 1 of 3 pairs: cat and owl" in text


def test_images_are_matched_by_their_files(tmp_path: Path) -> None:
    a = report([0, 1, 2], [0, 1, 2], files=["x.png", "y.png", "z.png"])
    b = report([2, 1], [2, 0], files=["z.png", "x.png"])
    found = compare_reports(write(tmp_path, a, b))
    assert found["images"] == 2
    assert [entry["image"] for entry in found["reports"][1]["changed"]] == ["x.png"]


def test_a_series_is_compared_with_its_first(tmp_path: Path) -> None:
    labels = [0, 1, 2]
    paths = write(tmp_path, *(report(p, labels) for p in ([0, 0, 0], [0, 1, 0], [0, 1, 2])))
    found = compare_reports(paths)
    assert [len(one["changed"]) for one in found["reports"]] == [0, 1, 2]
    assert [one["accuracy"] for one in found["reports"]] == [1 / 3, 2 / 3, 1]


def test_what_a_name_of_a_file_contains_is_printed_as_text(tmp_path: Path) -> None:
    a = report([0], [0], files=["\x1b[31mred"])
    b = report([1], [0], files=["\x1b[31mred"])
    assert "\x1b" not in comparison_text(compare_reports(write(tmp_path, a, b)))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"{", "no JSON"),
        (b"[1]", "no numbers of a report"),
        (b'{"generator": "other"}', "no numbers of a report"),
        (b"\xff\xfe", "no JSON"),
        (json.dumps(report([0], [0]) | {"schema": 9}).encode(), "schema 9"),
        (json.dumps(report([0], [0]) | {"extremes": {}}).encode(), "not complete"),
        (json.dumps(report([0], [0]) | {"extremes": {"all": [3]}}).encode(), "not complete"),
        (json.dumps(report([0, 1], [0, 1])).encode(), "2 images without file names"),
        (json.dumps(report([0], [1])).encode(), "image 0 has label 1"),
        (json.dumps(report([0], [0], names=["a", "b", "c"])).encode(), "its classes are a, b, c"),
        (json.dumps(report([0], [0], files=["x"])).encode(), "no image of"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, second: bytes, message: str) -> None:
    paths = write(tmp_path, report([0], [0]), report([0], [0]))
    paths[1].write_bytes(second)
    with pytest.raises(DataError, match=message):
        compare_reports(paths)


def test_the_command_prints_text_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(tmp_path, report([0, 1], [0, 1]), report([0, 0], [0, 1]))
    for arguments, code in (([*paths, "--json"], 0), (paths, 0), (paths[:1], 2)):
        monkeypatch.setattr(sys, "argv", ["fsboundary", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert int(stopped.value.code or 0) == code
        shown = capsys.readouterr()
        if "--json" in arguments:
            assert json.loads(shown.out)["images"] == 2
        elif code == 0:
            assert "1: dog -> cat (broken)" in shown.out
        else:
            assert "wanted two or more" in shown.err
