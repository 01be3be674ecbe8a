"""Triage: one row per example, on disk, continued after an interruption, and written as files."""

from __future__ import annotations

import csv
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fsboundary as fsb
from fsboundary import ArgumentError, DataError, HeadMismatchError, Reference, Triage
from fsboundary.scores import label_issues, novelty, pixel_margin, trust

G = torch.Generator().manual_seed(0)
TRAIN = torch.rand(90, 1, 4, 4, generator=G)
IMAGES = torch.rand(20, 1, 4, 4, generator=G)


def space(seed: int = 0) -> fsb.FeatureSpace:
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.7)
    return fsb.FeatureSpace(net, example=TRAIN[:1])


SPACE = space()


def labels_of(images: Tensor) -> Tensor:
    """Return the predicted class, and for every sixth image another one."""
    predicted = SPACE.extract(images).predicted
    return torch.where(torch.arange(len(images)) % 6 == 0, (predicted + 1) % 3, predicted)


LABELS, GIVEN = labels_of(TRAIN), labels_of(IMAGES)
IMAGES[4, 0, 0, 0] = torch.nan
GIVEN[5] = -1
DATA = DataLoader(TensorDataset(IMAGES, GIVEN), batch_size=6)
REFERENCE = Reference.fit(SPACE, TensorDataset(TRAIN, LABELS), "given")


@pytest.fixture(scope="module")
def found() -> Triage:
    return fsb.triage(SPACE, DATA, REFERENCE, level=0.2)


def same(one: Any, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)  # as the solver's tolerance


def test_a_row_has_what_each_score_returns(found: Triage) -> None:
    rows = list(found)
    batch = SPACE.extract(IMAGES)
    novel, trusted = novelty(REFERENCE, batch, level=0.2), trust(REFERENCE, batch, level=0.2)
    doubt = label_issues(REFERENCE, batch, GIVEN, level=0.2)
    margins = pixel_margin(SPACE, IMAGES).value
    flips = fsb.flip_points(SPACE.head, batch.features)
    assert (len(found), len(rows)) == (20, 20)
    for i, row in enumerate(rows):
        assert list(row) == list(found.columns)
        assert row["id"] == i
        if i == 4:
            continue
        assert row["predicted"] == batch.predicted[i]
        assert row["runner_up"] == flips.target[i, 0]
        for name, value in (
            ("novelty", novel.score),
            ("novelty_p", novel.p_value),
            ("distrust", trusted.score),
            ("pixel_margin", margins),
            ("flip_distance", flips.distance[:, 0]),
        ):
            assert same(row[name], float(value[i])), name
        assert row["flip_lower"] <= row["flip_distance"]
        assert row["novelty_verdict"] == novel.verdicts[i]
        assert row["trust_verdict"] == trusted.verdicts[i]
        if i != 5:
            assert same(row["label_issue"], float(doubt.score[i]))
            assert row["label_verdict"] == doubt.verdicts[i]
        suspicious = row["label_verdict"] == "suspicious"
        assert row["suggested"] == (int(doubt.other[i]) if suspicious else None)
        assert row["support_1"] == novel.support[i, 0]
        assert row["status"] == "OK"
    assert any(row["label_verdict"] == "suspicious" for row in rows)


def test_rows_without_a_number_or_a_label_fail_alone(found: Triage) -> None:
    rows = list(found)
    assert rows[4]["status"] == "NOT_FINITE"
    assert rows[4]["novelty"] is rows[4]["predicted"] is rows[4]["flip_distance"] is None
    assert rows[4]["novelty_verdict"] == "not scored (NOT_FINITE)"
    assert (rows[5]["given"], rows[5]["label_verdict"]) == (None, "no label")
    assert rows[5]["novelty"] is not None


class Killed(Exception):
    pass


def test_an_interrupted_run_continues(tmp_path: Path, found: Triage) -> None:
    path, calls = tmp_path / "rows.jsonl", []

    def until(stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(DATA):
            if number == stop:
                raise Killed
            yield tuple(batch)

    with pytest.raises(Killed):
        fsb.triage(SPACE, until(2), REFERENCE, path=path, level=0.2)
    assert len(Triage.open(path)) == 12
    with path.open("ab") as file:
        file.write(b'{"digest": "half of a li')
    handle = SPACE.model.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    try:
        again = fsb.triage(SPACE, DATA, REFERENCE, path=path, level=0.2)
    finally:
        handle.remove()
    assert 0 < sum(calls) < 20 * 3
    assert [row["id"] for row in again] == list(range(20))
    for one, other in zip(again, found, strict=True):
        assert {k: v for k, v in one.items() if not isinstance(v, float)} == {
            k: v for k, v in other.items() if not isinstance(v, float)
        }
    assert list(Triage.open(path)) == list(again)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fsb.triage(SPACE, DATA, REFERENCE, path=path, pixels=False)
    with pytest.raises(DataError, match="a triage of another options"):
        fsb.triage(SPACE, DATA, REFERENCE, path=path)
    with pytest.raises(DataError, match="batch 0 of the data is not the one"):
        fsb.triage(SPACE, [IMAGES], REFERENCE, path=path, pixels=False)
    with pytest.raises(DataError, match="a triage of more data: 4 batches, not 1"):
        fsb.triage(SPACE, list(DATA)[:1], REFERENCE, path=path, pixels=False)
    other = Reference.fit(SPACE, TensorDataset(TRAIN, LABELS), "given", sample=50)
    with pytest.raises(DataError, match="a triage of another reference"):
        fsb.triage(SPACE, DATA, other, path=path, pixels=False)
    lines = path.read_bytes().splitlines(keepends=True)
    for content in (b"", b"notes of mine\n", lines[0] + b"{}\n" + lines[1], b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"no triage|damaged triage"):
            Triage.open(path)
    with pytest.raises(DataError, match="cannot be read"):
        Triage.open(tmp_path / "missing")


def test_training_data_are_left_out_of_their_own_hulls() -> None:
    found = fsb.triage(SPACE, [(TRAIN, LABELS)], REFERENCE, training=True, pixels=False)
    alone = novelty(REFERENCE, SPACE.extract(TRAIN), leave_out=torch.arange(90))
    for row, score in zip(found, alone.score.tolist(), strict=True):
        assert same(row["novelty"], score)
        assert row["pixel_margin"] is None


def test_files(tmp_path: Path, found: Triage) -> None:
    found.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(i) for i in range(20)]
    assert rows[4]["novelty"] == ""
    assert same(float(rows[0]["novelty"]), next(iter(found))["novelty"])
    with pytest.raises(ArgumentError, match="exists"):
        found.to_csv(tmp_path / "a.csv")
    found.to_csv(tmp_path / "a.csv", force=True)
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == list(found.columns)
    assert len(table) == 20


def test_names_cannot_change_a_page_or_a_table(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(20)]
    names[0] = "</script><img src=x onerror=alert(1)>\u202egnp.png"
    found = fsb.triage(SPACE, DATA, REFERENCE, names=names, level=0.4)
    found.to_html(tmp_path / "a.html", class_names=["<b>", "b", "c"], title="<i>")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert "<b>" not in page
    assert "<title>&lt;i&gt;</title>" in page
    data = page.split('id="data">')[1].split("</script>")[0]
    rows = json.loads(data)
    assert rows[0][2] == names[0].replace("\u202e", "\\u202e")
    assert rows[0][4] in ("<b>", "b", "c")
    marked = [row for row in rows if "suspicious" in row]
    assert all(row[0].startswith("data:image/png;base64,") for row in marked)
    assert any(row[0] is None for row in rows)
    with pytest.raises(ArgumentError, match="class_names: got 1 names"):
        found.to_html(tmp_path / "b.html", class_names=["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]  # nothing is half written


def test_a_table_without_rows_is_a_page(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    fsb.triage(SPACE, DATA, REFERENCE, path=path)
    path.write_text(path.read_text("utf-8").splitlines()[0] + "\n", "utf-8")
    none = Triage.open(path)
    none.to_html(tmp_path / "a.html")
    none.to_csv(tmp_path / "a.csv")
    assert 'id="data">[]</script>' in (tmp_path / "a.html").read_text("utf-8")
    assert (tmp_path / "a.csv").read_text("utf-8").strip() == ",".join(none.columns)


@pytest.mark.parametrize("kind", ["csv", "html"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows"
    fsb.triage(SPACE, DATA, REFERENCE, path=path)
    first, *batches = path.read_text("utf-8").splitlines(keepends=True)

    def peak(times: int) -> int:
        path.write_text(first + "".join(batches) * times, "utf-8")
        table, target = Triage.open(path), tmp_path / f"{times}.{kind}"
        write = getattr(table, f"to_{kind}")
        tracemalloc.start()
        write(target)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert target.stat().st_size > 1000 * times
        return found

    peak(1)  # what is loaded once
    few, many = peak(10), peak(100)
    assert many < 1.5 * few  # the file is ten times as large; measured 1.0


def test_parquet_has_the_columns_of_the_frame(tmp_path: Path, found: Triage) -> None:
    found.to_parquet(tmp_path / "a.parquet")
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "a.parquet"), found.to_pandas(), check_dtype=False
    )


def test_what_is_refused() -> None:
    with pytest.raises(HeadMismatchError, match="another head"):
        fsb.triage(space(1), DATA, REFERENCE)
    for call, message in (
        (lambda: fsb.triage(SPACE, [], REFERENCE), "no examples"),
        (lambda: fsb.triage(SPACE, DATA, SPACE), "reference: got a FeatureSpace"),  # type: ignore[arg-type]
        (lambda: fsb.triage(SPACE.model, DATA, REFERENCE), "space: got a Sequential"),  # type: ignore[arg-type]
        (lambda: fsb.triage(SPACE, DATA, REFERENCE, level=0), "level: got 0"),
        (
            lambda: fsb.triage(SPACE, [(TRAIN, LABELS.clamp_min(1) + 1)], REFERENCE),
            "labels from 2 to 3",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
