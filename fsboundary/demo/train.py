"""Training of the demo's network on all of Fashion-MNIST; writes the demo's data files.

``python -m fsboundary.demo.train --data FOLDER`` where FOLDER contains the four
``*-ubyte.gz`` files of Fashion-MNIST (Debian's package ``dataset-fashion-mnist``
installs them). One run takes about twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from fsboundary.core.files import check_outputs, write_files
from fsboundary.demo.network import NUM_CLASSES, Normalize, SmallResNet
from fsboundary.modes import seeded

FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=rank, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(tuple(shape)).copy()


def read_fashion_mnist(folder: Path) -> dict[str, Tensor]:
    """Return images (N,1,28,28) uint8 and labels (N,) int64 of both splits."""
    out: dict[str, Tensor] = {}
    for key, name in FILES.items():
        array = torch.from_numpy(_read_idx(folder / name))
        out[key] = array[:, None] if key.endswith("images") else array.long()
    return out


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right and shift each by up to two pixels."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    shift = torch.randint(0, 5, (2, len(images)), generator=generator)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    rows = shift[0][:, None] + torch.arange(28)
    cols = shift[1][:, None] + torch.arange(28)
    index = torch.arange(len(images))[:, None, None]
    return padded[index, 0, rows[:, :, None], cols[:, None, :]][:, None]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose largest logit is that of their label."""
    model.eval()
    hits = sum(
        int((model(x.float() / 255).argmax(1) == y).sum())
        for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    )
    return hits / len(labels)


def train(data: dict[str, Tensor], epochs: int, seed: int) -> tuple[SmallResNet, float]:
    """Train with a one-cycle schedule; return the network and its test accuracy."""
    with seeded(seed):
        return _train(data, epochs, seed)


def _train(data: dict[str, Tensor], epochs: int, seed: int) -> tuple[SmallResNet, float]:
    generator = torch.Generator().manual_seed(seed)
    network = SmallResNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload
    model = nn.Sequential(Normalize(), network)
    images, labels = data["train_images"], data["train_labels"]
    batch, steps = 128, epochs * (len(images) // 128)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=steps, pct_start=0.2
    )
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for index in order.split(batch)[: len(images) // batch]:
            x = augment(images[index].float() / 255, generator)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), labels[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        score = accuracy(model, data["test_images"], data["test_labels"])
        print(f"epoch {epoch + 1}/{epochs}: test accuracy {score:.4f}", flush=True)
    return network.eval(), score


def subset(images: Tensor, labels: Tensor, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `per_class` random images of every class, in dataset order."""
    generator = torch.Generator().manual_seed(seed)
    selected = []
    for k in range(NUM_CLASSES):
        rows = (labels == k).nonzero()[:, 0]
        selected.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    index = torch.cat(selected).sort().values
    return images[index], labels[index]


def main() -> None:
    """Train, then write ``weights.safetensors``, ``images.npz`` and ``training.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the *.gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = ("weights.safetensors", "images.npz", "training.json")
    inputs = [args.data / file for file in FILES.values()]
    check_outputs({name: args.out / name for name in names}, inputs=inputs, force=True)
    data = read_fashion_mnist(args.data)
    start = time.perf_counter()
    network, score = train(data, args.epochs, args.seed)
    minutes = (time.perf_counter() - start) / 60
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    train_x, train_y = subset(data["train_images"], data["train_labels"], 300, args.seed)
    test_x, test_y = subset(data["test_images"], data["test_labels"], 50, args.seed)
    images = io.BytesIO()
    np.savez_compressed(
        images,
        train_images=train_x.numpy(),
        train_labels=train_y.numpy().astype(np.uint8),
        test_images=test_x.numpy(),
        test_labels=test_y.numpy().astype(np.uint8),
    )
    facts = {
        "test_accuracy": score,
        "epochs": args.epochs,
        "seed": args.seed,
        "minutes": round(minutes, 1),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    written = (save(state), images.getvalue(), (json.dumps(facts, indent=2) + "\n").encode())
    contents = {args.out / name: content for name, content in zip(names, written, strict=True)}
    write_files(contents, force=True)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
