"""Banks of features of augmented real images, of any number of rows, on disk.

Every image is one of Fashion-MNIST's training images, flipped with probability one half, shifted
by up to two pixels each way and given pixel noise of a standard deviation of up to 0.1. The images
of a batch depend only on its number, so an interrupted run resumes where it stopped.

Widths: 64 is the input of the demo network's head. 256, 512 and 2048 are activations of an earlier
block of the same network, after its activation and average-pooled to 2x2, 4x4 and 8x8 cells: 64,
32 and 32 channels. These pooled activations are the last hidden layer of a network that ends there;
its head is arbitrary.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import augment, read_fashion_mnist

BATCH = 64
NOISE = 0.1
LAYERS = {256: (6, 2), 512: (4, 4), 2048: (4, 8)}
"""Number of blocks before the layer, and of cells per side, by width."""


@dataclass(frozen=True)
class Augmented:
    """Batches of (images, labels), the same in every iteration.

    Parameters
    ----------
    images : Tensor (N, 1, 28, 28), uint8
    labels : Tensor (N,)
    count : int
        Number of images; they cycle through the N in order.
    seed : int
    """

    images: Tensor
    labels: Tensor
    count: int
    seed: int = 0

    def __len__(self) -> int:
        return -(-self.count // BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(len(self)):
            rows = torch.arange(number * BATCH, min((number + 1) * BATCH, self.count))
            rows = rows % len(self.images)
            g = torch.Generator().manual_seed(self.seed * 2**32 + number)
            images = augment(self.images[rows].float() / 255, g)
            size = NOISE * torch.rand((len(rows), 1, 1, 1), generator=g)
            noise = torch.randn(images.shape, generator=g)
            yield (images + size * noise).clamp(0, 1), self.labels[rows]


class EarlierLayer(nn.Module):
    """The demo's network up to a block, pooled, with a head of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        blocks, side = LAYERS[width]
        model = load_demo().model
        pool = nn.AdaptiveAvgPool2d(side)
        self.body = nn.Sequential(model.stem, *model.blocks[:blocks], pool, nn.Flatten())
        self.head = nn.Linear(width, 10)
        nn.init.constant_(self.head.weight, 1 / width)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the head's output (B,10)."""
        out: Tensor = self.head(self.body(images))
        return out


def space_of(width: int) -> fsb.FeatureSpace:
    """Return the space whose features have this width."""
    demo = load_demo()
    model = demo.model if width == demo.model.head.in_features else EarlierLayer(width)
    return fsb.FeatureSpace(model.eval(), preprocess=demo.preprocess)


def images_of(data: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return training images, their labels and test images, uint8; None for the demo's images."""
    if data is not None:
        read = read_fashion_mnist(data)
        return read["train_images"], read["train_labels"], read["test_images"]
    demo = load_demo()
    train, test = ((255 * x).to(torch.uint8) for x in (demo.train_images, demo.test_images))
    return train, demo.train_labels, test


def write_bank(path: Path, count: int, width: int, data: Path | None) -> dict[str, float]:
    """Write or resume a bank of `count` rows and return how long that took."""
    train, labels, _ = images_of(data)
    start = time.perf_counter()
    bank = space_of(width).bank(Augmented(train, labels, count), path)
    seconds = time.perf_counter() - start
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    return {
        "rows": len(bank),
        "width": bank.num_features,
        "extraction_seconds": round(seconds, 1),
        "images_a_second": round(count / seconds, 1),
        "gib_of_features": round(len(bank) * bank.num_features * 4 / 2**30, 3),
        "gib_on_disk": round(size / 2**30, 3),
    }


def main() -> None:
    """Write one bank and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--width", type=int, choices=(64, *LAYERS), default=64)
    parser.add_argument(
        "--data", type=Path, help="folder of Fashion-MNIST; by default the demo's images"
    )
    args = parser.parse_args()
    print(json.dumps(write_bank(args.path, args.count, args.width, args.data)))


if __name__ == "__main__":
    main()
