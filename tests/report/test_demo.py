"""The demo: its data, its network and its report."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from fsboundary.demo import load_demo
from fsboundary.report.plan import expected_stages
from fsboundary.space import FeatureSpace
from support.report import open_words, tiny_subject

MEGABYTE = 1_000_000


def test_data_are_what_they_claim() -> None:
    demo = load_demo()
    for images, labels, each in (
        (demo.train_images, demo.train_labels, 300),
        (demo.test_images, demo.test_labels, 50),
    ):
        assert images.shape == (10 * each, 1, 28, 28)
        assert images.dtype == torch.float32
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        assert torch.bincount(labels).tolist() == [each] * 10
    assert len(demo.class_names) == 10
    assert not demo.model.training
    assert demo.facts["test_accuracy"] >= 0.925
    assert demo.facts["parameters"] == sum(p.numel() for p in demo.model.parameters())


def test_network_is_as_accurate_as_stated() -> None:
    demo = load_demo()
    space = FeatureSpace(demo.model, preprocess=demo.preprocess)
    batch = space.extract(demo.test_images)
    accuracy = float((batch.predicted == demo.test_labels).double().mean())
    # 500 of the 10,000 images: four standard deviations of a binomial share
    assert abs(accuracy - demo.facts["test_accuracy"]) <= 4 * (0.06 * 0.94 / 500) ** 0.5
    assert (space.head.num_features, space.head.num_classes) == (64, 10)
    assert space.domain.kind == "nonnegative"


def test_files_are_small_and_licensed() -> None:
    folder = files("fsboundary.demo") / "data"
    assert len((folder / "weights.safetensors").read_bytes()) <= 1.5 * MEGABYTE
    notice = (folder / "LICENSE-fashion-mnist.txt").read_text("utf-8")
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_a_reader_sees_less_than_4000_words(demo_report: tuple[Path, Path]) -> None:
    text = demo_report[0].read_text("utf-8")
    assert 1500 < open_words(text) < 4000
    assert open_words("<p>two words</p><details><summary>one</summary>hidden</details>") == 3


def test_the_bar_expects_the_stages_that_there_are(demo_report: tuple[Path, Path]) -> None:
    stages = json.loads(demo_report[1].read_text("utf-8"))["provenance"]["stages"]
    demo = load_demo()
    subject = tiny_subject(images=demo.test_images, train_images=demo.train_images)
    assert {one.name for one in expected_stages(subject)} == {stage["name"] for stage in stages}


def test_report(demo_report: tuple[Path, Path]) -> None:
    page, numbers = demo_report
    assert page.stat().st_size <= 2 * MEGABYTE
    found = json.loads(numbers.read_text("utf-8"))
    overview = found["overview"]
    assert overview["images"] == overview["with_distance"] == 500
    assert overview["certificates"]["certified"] == overview["certificates"]["requested"] == 4500
    assert overview["certificates"]["largest_relative_gap"] <= 1e-8
    assert len(found["planes"]["slices"]) == 3
    assert found["provenance"]["notes"]["layer"] == "head"
    pixels = found["pixels"]
    assert pixels["flips"]["found"] == pixels["flips"]["requested"]
    assert pixels["flips"]["largest_residual"] <= 1e-4
    assert [len(path["times"]) for path in pixels["morphs"]["shown"]] == [9, 9]
    assert sum(entry["images"] for entry in pixels["moves"]["classes"]) == 40
    films = re.findall(r"data:image/gif;base64,[^\"]+", page.read_text("utf-8"))
    assert len(films) == 2
    assert sum(map(len, films)) <= 0.2 * MEGABYTE
    hull = found["hull"]
    assert hull["training"] == {"total": 3000, "usable": 3000}
    assert hull["groups"]["images"]["rows"] == 500
    assert all(group["uncertified"] == 0 for group in hull["groups"].values())
    # distances are divided by the median before theirs is taken: a rounding or two
    assert hull["groups"]["leave_one_out"]["median"] == pytest.approx(1.0, rel=1e-12)
    assert hull["groups"]["noise"]["median"] > 2 * hull["groups"]["images"]["median"]
    assert [step["dimensions"] for step in hull["sweep"]["steps"]][::8] == [2, 64]
    attribution = found["attribution"]
    assert [method["error"] for method in attribution["methods"]] == [None] * 5
    assert [method["num_missing"] for method in attribution["methods"]] == [0] * 5
    # image by image, the direction to the boundary meets it sooner than those of methods that do
    # not look for it
    others = attribution["comparison"]["versus_boundary"]
    assert [entry["nearer"]["verdict"] for entry in others] == ["less"] * 4
    division = found["division"]
    assert division["whole"]["facets"] == division["boxed"]["facets"] == division["whole"]["pairs"]
    assert division["whole"]["unbounded"] == division["boxed"]["bounded"] == 10
    assert division["coverage"]["kinds"]["hull"]["accuracy_covered"] > 0.93
    assert len(division["ambiguous"]["images"]) == 6
