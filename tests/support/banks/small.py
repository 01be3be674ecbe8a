"""A small model, its images, and the files in the folder of a bank."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import fsboundary as fsb
from support.banks.oracle import normal

ROWS, BATCH, CHUNK = 47, 4, 8
"""Sizes that give 12 batches, the last of 3 images, in 6 chunks, the last of 7 rows."""


class CountingModel(nn.Sequential):
    """A classifier that counts the images that it is called with."""

    seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call] # torch's own
        return logits


def model(seed: int = 0, body_seed: int = 0) -> CountingModel:
    """Return a model from 1x2x3 images to 3 classes with 4 features; `seed` sets the head."""
    with torch.random.fork_rng():
        torch.manual_seed(body_seed)
        body = nn.Linear(6, 4)
        torch.manual_seed(seed)
        return CountingModel(nn.Flatten(), body, nn.ReLU(), nn.Linear(4, 3)).eval()


def images(rows: int = ROWS) -> Tensor:
    return normal(rows, 1, 2, 3)


def labels(rows: int = ROWS) -> Tensor:
    return torch.arange(rows) % 3


def loader(rows: int = ROWS, batch: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images(rows).split(batch), labels(rows).split(batch), strict=True))


def space() -> fsb.FeatureSpace:
    return fsb.FeatureSpace(model())


def content(path: Path) -> dict[str, bytes]:
    """Return the bytes of every file under `path`, by relative path."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
