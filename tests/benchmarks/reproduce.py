"""Published results, reproduced with certified hulls: python tests/benchmarks/reproduce.py NAME.

Names: wendel, cover, polytopes, opencv, sklearn, fashion, inside. docs/reproduced.md has their
figures, with the time of each.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor

import fsboundary as fsb
from fsboundary.demo.load import load_demo
from fsboundary.demo.train import read_fashion_mnist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.known_counts import (
    cover_count,
    division_intersections,
    expected_vertices,
    origin_memberships,
    wendel_count,
)

Data = tuple[Tensor, Tensor, Tensor, Tensor]
"""Training images and labels, test images and labels; one row of pixels per image."""


def normal_points(count: int, dimension: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def wendel() -> None:
    """Count for how many choices of signs the hull misses the origin."""
    for count, dimension in ((8, 2), (10, 3), (12, 4), (12, 6), (13, 8)):
        inside = origin_memberships(normal_points(count, dimension))
        print(
            f"n = {count}, d = {dimension}: {int((inside == -1).sum())} of {len(inside)} hulls "
            f"certified to miss the origin, {int((inside == 0).sum())} undecided; "
            f"theorem {wendel_count(count, dimension)}"
        )


def cover() -> None:
    """Count how many divisions of n points a hyperplane separates."""
    for count, dimension in ((8, 2), (9, 3), (10, 4), (10, 6)):
        meet = division_intersections(normal_points(count, dimension))
        print(
            f"n = {count}, d = {dimension}: {int((meet == -1).sum()) + 2} of {len(meet) + 2} "
            f"divisions certified separable, {int((meet == 0).sum())} undecided; "
            f"theorem {cover_count(count, dimension)}"
        )


def polytopes(trials: int = 200) -> None:
    """Compare the mean number of vertices of Gaussian polytopes with its expectation."""
    for dimension in (2, 3):
        for count in (10, 100, 1000):
            found = torch.tensor(
                [
                    len(
                        fsb.hull_vertices(
                            fsb.FeatureBank(normal_points(count, dimension, s))
                        ).indices
                    )
                    for s in range(trials)
                ]
            ).double()
            error = float(found.std()) / trials**0.5
            print(
                f"n = {count}, d = {dimension}: mean of {trials} hulls {float(found.mean()):.3f} "
                f"+- {1.96 * error:.3f} (95 %); expected {expected_vertices(count, dimension):.3f}"
            )


def nearest_hull(data: Data) -> str:
    """Return the accuracy of the nearest class hull, and how many of its answers are certified."""
    train, labels, test, truth = data
    started = time.process_time()
    found = fsb.nearest_hulls(fsb.FeatureBank(train, labels), test)
    seconds = time.process_time() - started
    right = int((found.label == truth).sum())
    return (
        f"{100 * right / len(truth):.2f} % ({right} of {len(truth)}; {int(found.ok.sum())} "
        f"certified; {seconds:.0f} s)"
    )


def neighbours(data: Data, k: int) -> str:
    train, labels, test, truth = (part.numpy() for part in data)
    share = KNeighborsClassifier(k).fit(train, labels).score(test, truth)
    return f"{100 * share:.2f} %"


def opencv(path: Path) -> None:
    """OpenCV's tutorial on handwritten digits: half of the 5,000 for training, k = 5."""
    pixels = np.array(Image.open(path).convert("L"), dtype=np.float32)
    cells = torch.from_numpy(pixels).reshape(50, 20, 100, 20).permute(0, 2, 1, 3)
    cells = cells.reshape(50, 100, 400)
    labels = torch.arange(10).repeat_interleave(250)
    data = (
        cells[:, :50].reshape(2500, 400),
        labels,
        cells[:, 50:].reshape(2500, 400),
        labels,
    )
    print(f"OpenCV's digits: 5 nearest neighbours {neighbours(data, 5)} (published 91.76 %)")
    print(f"  nearest hull {nearest_hull(data)}")


def sklearn() -> None:
    """scikit-learn's example on handwritten digits: the first half for training, not shuffled."""
    digits = load_digits()
    images = torch.from_numpy(digits.data).float()
    labels = torch.from_numpy(digits.target).long()
    half = len(images) // 2
    data = images[:half], labels[:half], images[half:], labels[half:]
    model = SVC(gamma=0.001).fit(data[0].numpy(), data[1].numpy())
    share = model.score(data[2].numpy(), data[3].numpy())
    print(f"scikit-learn's digits: support vectors {100 * share:.2f} % (published 97 %)")
    print(f"  1 nearest neighbour {neighbours(data, 1)}")
    print(f"  nearest hull {nearest_hull(data)}")


def fashion_pixels(folder: Path, rows: int) -> Data:
    data = read_fashion_mnist(folder)
    train, test = (data[f"{part}_images"].flatten(1).float() for part in ("train", "test"))
    return train, data["train_labels"], test[:rows], data["test_labels"][:rows]


def fashion(folder: Path, rows: int) -> None:
    """Classify Fashion-MNIST by the nearest hull of pixels."""
    data = fashion_pixels(folder, rows)
    print(f"Fashion-MNIST, pixels: 1 nearest neighbour {neighbours(data, 1)}")
    print(f"  nearest hull {nearest_hull(data)}")


def inside(folder: Path, rows: int) -> None:
    """Count the test images that are inside the hull of the training images."""
    train, _, test, _ = fashion_pixels(folder, rows)
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    digits = load_digits()
    features = [space.extract(x).features for x in (demo.train_images, demo.test_images)]
    small = torch.from_numpy(digits.data).float()
    for name, points, queries in (
        ("Fashion-MNIST, 784 pixels", train, test),
        ("Fashion-MNIST, 64 features of the demo's network", *features),
        ("scikit-learn's digits, 64 pixels", small[: len(small) // 2], small[len(small) // 2 :]),
    ):
        started = time.process_time()
        found = fsb.hull_projection(fsb.FeatureBank(points), queries).membership
        print(
            f"{name}: of {len(queries)} test images {int((found == -1).sum())} certified outside "
            f"the hull of {len(points)} training images, {int((found == 1).sum())} inside, "
            f"{int((found == 0).sum())} undecided ({time.process_time() - started:.0f} s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("wendel", "cover", "polytopes", "opencv", "sklearn", "fashion", "inside")
    parser.add_argument("names", nargs="*", choices=[*names, []], default=[])
    parser.add_argument(
        "--digits",
        type=Path,
        default=Path("/usr/share/doc/opencv-doc/examples/data/digits.png"),
        help="of Debian's package opencv-doc",
    )
    parser.add_argument(
        "--fashion",
        type=Path,
        default=Path("/usr/share/datasets/fashion-mnist"),
        help="of Debian's package dataset-fashion-mnist",
    )
    parser.add_argument("--rows", type=int, default=10_000, help="test images of Fashion-MNIST")
    options = parser.parse_args()
    calls = {
        "wendel": wendel,
        "cover": cover,
        "polytopes": polytopes,
        "opencv": lambda: opencv(options.digits),
        "sklearn": sklearn,
        "fashion": lambda: fashion(options.fashion, options.rows),
        "inside": lambda: inside(options.fashion, options.rows),
    }
    for name in options.names or names:
        started = time.process_time()
        calls[name]()
        print(f"({name}: {time.process_time() - started:.0f} s of processor time)\n", flush=True)


if __name__ == "__main__":
    main()
