"""Certified shares of the distance of flip images, on a small ReLU network trained here.

Two strided convolutions and two linear layers are trained on the demo's images, which takes
seconds. For each method: the median of certified radius over the distance of the nearest known
image of another class, Linf, on test images, and seconds of processor time per image. The demo's
own network follows, with whatever it gives.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import pixels, plugins
from fsboundary.demo import load_demo
from fsboundary.plugins.interfaces import BodyBounds

TOLERANCE = 1e-2


def train(images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return the network, trained for ten epochs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(10):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def lipschitz(model: nn.Sequential, image: Tensor) -> float:
    """Return the product of the spectral norms of the layers before the head, from Linf to L2."""
    constant, x = image.numel() ** 0.5, image[None].double()
    for layer in model[:-1].double():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            jacobian = torch.autograd.functional.jacobian(layer, x)
            matrix = jacobian.reshape(layer(x).numel(), x.numel())
            # raised by more than the rounding of a decomposition
            constant *= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-9)
        x = layer(x)
    model.float()
    return constant


def report(
    name: str,
    space: fsb.FeatureSpace,
    images: Tensor,
    flips: fsb.core.results.FlipImages,
    method: str | BodyBounds = "linear_bounds",
    constant: float | None = None,
) -> None:
    """Certify the images with one method, and print a line."""
    start = time.process_time()
    found = pixels.certify(
        space, images, upper=flips, method=method, lipschitz=constant, tolerance=TOLERANCE
    )  # fmt: skip
    seconds = (time.process_time() - start) / len(images)
    share = (found.radius / found.upper)[torch.isfinite(found.upper)]
    quartiles = torch.quantile(share, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    low, middle, high = quartiles.tolist()
    certified = int((found.radius > 0).sum())
    print(
        f"{name:34} {certified:4}/{len(images)} {middle:10.3g} {low:8.3g} to {high:<8.3g} "
        f"{seconds:8.2f}",
        flush=True,
    )


def mixed() -> BodyBounds:
    """Return linear bounds with limits by intervals."""
    made: BodyBounds = plugins.create(
        "body_bound", "linear_bounds", options={"intermediate": "interval"}
    )
    return made


def small_network(count: int) -> None:
    """Train the small network, and certify test images."""
    demo = load_demo()
    images = demo.test_images[:count]
    start = time.process_time()
    model = train(demo.train_images, demo.train_labels)
    accuracy = float((model(demo.test_images).argmax(1) == demo.test_labels).double().mean())
    print(f"trained in {time.process_time() - start:.0f} s, accuracy {100 * accuracy:.1f} %")
    space = fsb.FeatureSpace(model)
    flips = pixels.flip_images(space, images, norm="linf")
    print(f"median distance of flip images, Linf: {float(flips.distance.median()):.4f}")
    print(f"{'small CNN':34} {'certified':>9} {'median':>8} {'quartiles':>17} {'s/image':>10}")
    report("linear_bounds", space, images, flips)
    report("linear_bounds, intervals within", space, images, flips, mixed())
    report("interval", space, images, flips, "interval")
    report(
        "Lipschitz, product of norms", space, images, flips, constant=lipschitz(model, images[0])
    )


def demo_network(count: int) -> None:
    """Certify test images for the demo's network."""
    demo = load_demo()
    images = demo.test_images[:count]
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    flips = pixels.flip_images(space, images, norm="linf")
    print(f"demo's ResNet, median distance of flip images {float(flips.distance.median()):.4f}")
    report("linear_bounds, intervals within", space, images, flips, mixed())
    report("interval", space, images, flips, "interval")


def main() -> None:
    """Train, certify and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--demo-images", type=int, default=4)
    args = parser.parse_args()
    if args.images:
        small_network(args.images)
    if args.demo_images:
        demo_network(args.demo_images)


if __name__ == "__main__":
    main()
