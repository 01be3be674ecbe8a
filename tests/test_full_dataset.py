from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist

pytestmark = pytest.mark.needs_full_dataset


@pytest.fixture(scope="module")
def full(full_dataset: Path) -> dict[str, torch.Tensor]:
    return read_fashion_mnist(full_dataset)


def test_the_stated_accuracy_is_that_of_the_embedded_weights(full: dict[str, torch.Tensor]) -> None:
    demo = load_demo()
    stated = json.loads((files("fsboundary.demo") / "data" / "training.json").read_text())
    hits = 0
    with torch.no_grad():
        for images, labels in zip(
            full["test_images"].split(500), full["test_labels"].split(500), strict=True
        ):
            logits = demo.model(demo.preprocess(images.float() / 255))
            hits += int((logits.argmax(dim=1) == labels).sum())
    accuracy = hits / len(full["test_labels"])
    assert accuracy >= 0.925
    # other kernels may break a few ties otherwise
    assert accuracy == pytest.approx(stated["test_accuracy"], abs=5e-4)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_images_are_the_dataset_s_own(
    full: dict[str, torch.Tensor], split: str
) -> None:
    demo = load_demo()
    images, labels = getattr(demo, f"{split}_images"), getattr(demo, f"{split}_labels")
    known = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(full[f"{split}_images"], full[f"{split}_labels"], strict=True)
    }
    raw = (images * 255).round().to(torch.uint8)
    assert all((i.numpy().tobytes(), int(k)) in known for i, k in zip(raw, labels, strict=True))
    counts = labels.bincount()
    assert (counts == counts[0]).all()
    assert len(labels) >= {"train": 3000, "test": 500}[split]
