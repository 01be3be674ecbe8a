"""One rule for labels everywhere: -1 is no label, other numbers must be classes of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
import fsboundary.analysis
from fsboundary.core.checks import check_labels

CLASSES, ROWS, SIDE = 3, 12, 4


def setting() -> tuple[fsb.FeatureSpace, Tensor, Tensor]:
    """Return a space of 3 classes, images and the predicted classes as labels."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Softplus(), nn.Linear(6, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model[3].bias.sub_(model(torch.rand(200, 1, SIDE, SIDE, generator=generator)).mean(dim=0))
    space = fsb.FeatureSpace(model.eval())
    images = torch.rand(ROWS, 1, SIDE, SIDE, generator=generator)
    return space, images, space.extract(images).predicted


SPACE, IMAGES, LABELS = setting()
BATCH = SPACE.extract(IMAGES)
BANK = fsb.FeatureBank(BATCH.features)

CALLS: dict[str, Callable[[Tensor], Any]] = {
    "check_accuracy": lambda labels: fsb.pixels.check_accuracy(SPACE, IMAGES, labels),
    "coverage": lambda labels: fsb.coverage(SPACE.head, BANK, BATCH, labels),
    "flip_images": lambda labels: fsb.pixels.flip_images(SPACE, IMAGES, labels=labels, max_steps=1),
    "morph": lambda labels: fsb.pixels.morph(
        SPACE, IMAGES, IMAGES.flip(0), labels=labels, steps=3, max_steps=1
    ),
    "amplification": lambda labels: fsb.pixels.amplification(
        SPACE, IMAGES, radius=0.1, labels=labels, directions=1, max_steps=1
    ),
    "two_spaces": lambda labels: fsboundary.analysis.two_spaces(
        SPACE, IMAGES, labels, IMAGES, LABELS, sample=4, flips=2, pairs=3, neighbours=2, points=2
    ),
    "two_spaces, training": lambda labels: fsboundary.analysis.two_spaces(
        SPACE, IMAGES, LABELS, IMAGES, labels, sample=4, flips=2, pairs=3, neighbours=2, points=2
    ),
    "bank": lambda labels: SPACE.bank([(IMAGES, labels)]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrong", [LABELS + 1, torch.where(LABELS == 0, -2, LABELS)])
def test_numbers_that_are_no_class_are_refused(name: str, wrong: Tensor) -> None:
    low, high = int(wrong.min()), int(wrong.max())
    with pytest.raises(fsb.ArgumentError, match=rf"labels: got labels from {low} to {high}"):
        CALLS[name](wrong)


def test_labels_from_one_get_their_own_advice() -> None:
    with pytest.raises(fsb.ArgumentError, match="subtract 1 from labels that start at 1"):
        fsb.pixels.check_accuracy(SPACE, IMAGES, LABELS + 1)


@pytest.mark.parametrize("name", CALLS)
def test_rows_may_have_no_label(name: str) -> None:
    CALLS[name](torch.where(torch.arange(ROWS) % 3 == 0, -1, LABELS))


def test_rows_without_a_label_do_not_count() -> None:
    known = torch.arange(ROWS) % 3 != 0
    some = torch.where(known, LABELS, -1)
    assert fsb.pixels.check_accuracy(SPACE, IMAGES, some) == 1.0
    some[1] = (some[1] + 1) % CLASSES
    expected = (int(known.sum()) - 1) / int(known.sum())
    assert fsb.pixels.check_accuracy(SPACE, IMAGES, some) == pytest.approx(expected)
    covered = fsb.coverage_fractions(fsb.coverage(SPACE.head, BANK, BATCH, some))
    assert float(covered.accuracy_covered[0]) == pytest.approx(expected)
    nothing = torch.full((ROWS,), -1)
    assert math.isnan(fsb.pixels.check_accuracy(SPACE, IMAGES, nothing))
    result = fsb.pixels.amplification(SPACE, IMAGES, radius=0.1, directions=1, max_steps=1)
    table = fsb.pixels.vulnerability_by_class(result, torch.where(known, LABELS, -1))
    assert sum(entry["images"] for entry in table.values()) == int(known.sum())


def test_rows_without_a_label_are_of_no_class() -> None:
    labels = torch.arange(ROWS) % 2
    labels[:4] = -1
    bank = fsb.FeatureBank(BATCH.features, labels)
    known = fsb.FeatureBank(BATCH.features[4:], labels[4:])
    assert torch.equal(
        fsb.class_hull_distances(bank, BATCH), fsb.class_hull_distances(known, BATCH)
    )
    with pytest.raises(fsb.ArgumentError, match="which no row has"):
        bank.subset(labels=-1)
    with pytest.raises(fsb.ArgumentError, match="which no row has"):
        fsb.hull_separation(bank, -1, 0)
    left_out = fsb.leave_one_out_distances(bank, torch.arange(ROWS), own_class=True)
    assert left_out.distance[:4].isposinf().all()
    alone = fsb.leave_one_out_distances(known, torch.arange(ROWS - 4), own_class=True)
    assert torch.equal(left_out.distance[4:], alone.distance)


def test_labels_survive_a_bank_on_disk(tmp_path: Path) -> None:
    labels = torch.where(torch.arange(ROWS) % 3 == 0, -1, LABELS)
    bank = SPACE.bank([(IMAGES, labels)], tmp_path / "bank")
    assert torch.equal(bank.labels, labels)


def test_unsigned_numbers_do_not_wrap_around() -> None:
    huge = torch.tensor([0, 2**63 - 1], dtype=torch.int64).to(torch.uint64)
    assert check_labels(huge, 2).tolist() == [0, 2**63 - 1]
    wrapped = torch.tensor([0, -1]).view(torch.uint64)  # 2**64 - 1, which is -1 as int64
    with pytest.raises(fsb.ArgumentError, match=r"numbers of 2\*\*63 or more"):
        check_labels(wrapped, 2)
