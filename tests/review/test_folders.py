"""``fsboundary triage``: folders of pictures, a model of the user's own, and its tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fsboundary.cli import app
from fsboundary.core.errors import ReportWarning

MODEL = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a module, and pictures of two classes."""
    (tmp_path / "own_triage_net.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("new", 12)):
        for number in range(count):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            place = tmp_path / part / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number:02d}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    fixed = ("triage", "--model", "own_triage_net:make", "--train", "train", "--quiet")
    done = CliRunner().invoke(app, [*fixed, *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return str(done.exception)
    assert done.exit_code == 0, done.output
    return done.output


def test_folders_to_tables(folder: Path) -> None:
    assert "Wrote suspects.csv" in run("--data", "new", "--reference", "r.safetensors")
    with (folder / "suspects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["status"] for row in rows} == {"OK"}
    assert all((folder / "new" / row["file"]).is_file() for row in rows)
    assert all((folder / "train" / row["support_1"]).is_file() for row in rows)
    page = run("--data", "new", "--reference", "r.safetensors", "--out", "a.html", "--no-pixels")
    assert "Wrote a.html" in page
    assert "own_triage_net" not in (folder / "a.html").read_text("utf-8")
    assert "exists" in run("--data", "new", "--reference", "r.safetensors")
    run("--data", "train", "--out", "b.csv", "--rows", "rows.jsonl", "--no-pixels")
    assert (folder / "rows.jsonl").is_file()


def test_what_is_refused(folder: Path) -> None:
    assert "ends in .csv, .parquet, .html" in run("--data", "new", "--out", "a.txt")
    (folder / "new" / "b").rename(folder / "new" / "c")
    assert "Name the subfolders alike" in run("--data", "new")
    (folder / "empty").mkdir()
    assert "empty" in run("--data", "empty")


NORMED = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten(), nn.Linear(64, 2))
    model.train()((torch.rand(64, 1, 8, 8) - 0.5) / 0.29)
    return model
def normalise():
    return lambda images: (images - 0.5) / 0.29
"""


def test_preprocessing_left_out_is_noticed(folder: Path) -> None:
    (folder / "own_normed_net.py").write_text(NORMED)
    given = ("--data", "train", "--model", "own_normed_net:make", "--no-pixels")
    with pytest.warns(ReportWarning, match="Is the preprocessing left out"):
        run(*given, "--out", "a.csv")
    run(*given, "--preprocess", "own_normed_net:normalise", "--out", "b.csv")
