"""Certified shares of the distance of flip images, on a small ReLU network trained here.

Two strided convolutions and two linear layers are trained on the demo's images, which takes
seconds. For each method: the median of certified radius over the distance of the nearest known
image of another class, Linf, on test images, and seconds of processor time per image. The same
follows by network: linear, two hidden layers, 1-Lipschitz, and the demo's own network, with
whatever it gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)

import fsboundary as fsb
from fsboundary import pixels, plugins
from fsboundary.demo import load_demo
from fsboundary.plugins.interfaces import BodyBounds

TOLERANCE = 1e-2
BJORCK_STEPS = 10
"""No singular value exceeds 1 after any number; after these, the smallest ones of wide matrices
are 1, too, and of square matrices less."""


def small_cnn() -> nn.Sequential:
    """Return the network of the first table."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip


def linear() -> nn.Sequential:
    """Return a linear classifier of the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def two_layers() -> nn.Sequential:
    """Return a network with two hidden layers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


class Orthonormal(nn.Module):
    """Rows made orthonormal by Björck's iteration: products of matrices, which are fast."""

    def forward(self, weight: Tensor) -> Tensor:
        # below 1 in spectral norm, where the iteration converges
        w = weight / (weight.abs().sum(0).amax() * weight.abs().sum(1).amax()).sqrt()
        for _ in range(BJORCK_STEPS):
            w = 1.5 * w - 0.5 * (w @ w.T) @ w
        return w


class AbsoluteValue(nn.Module):
    """Absolute values, which unlike a ReLU change no length."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


def one_lipschitz() -> nn.Sequential:
    """Return a network whose body changes no distance by more than a factor of 1."""
    layers = [nn.Linear(784, 64), nn.Linear(64, 64)]
    for layer in layers:
        register_parametrization(layer, "weight", Orthonormal())
    return nn.Sequential(
        nn.Flatten(), layers[0], AbsoluteValue(), layers[1], AbsoluteValue(), nn.Linear(64, 10)
    )


def train(make: Callable[[], nn.Sequential], images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return a network, trained for ten epochs."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(10):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    for layer in model:
        if is_parametrized(layer):
            remove_parametrizations(layer, "weight")
    return model.eval().requires_grad_(False)


def lipschitz(model: nn.Sequential, image: Tensor, norm: Literal["linf", "l2"] = "linf") -> float:
    """Return the product of the spectral norms of the layers before the head, from `norm` to L2."""
    constant, x = image.numel() ** 0.5 if norm == "linf" else 1.0, image[None].double()
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
    norm: Literal["linf", "l2"] = "linf",
) -> None:
    """Certify the images with one method, and print a line."""
    start = time.process_time()
    found = pixels.certify(
        space, images, norm=norm, upper=flips, method=method, lipschitz=constant,
        tolerance=TOLERANCE,
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
    model = train(small_cnn, demo.train_images, demo.train_labels)
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


def other_networks(count: int) -> None:
    """Certify test images for networks of other kinds."""
    demo = load_demo()
    images = demo.test_images[:count]
    for make in (linear, two_layers, one_lipschitz):
        start = time.process_time()
        model = train(make, demo.train_images, demo.train_labels)
        print(f"{make.__name__}: trained in {time.process_time() - start:.0f} s")
        accuracy = float((model(demo.test_images).argmax(1) == demo.test_labels).double().mean())
        space = fsb.FeatureSpace(model)
        for norm in ("linf", "l2"):
            flips = pixels.flip_images(space, images, norm=norm)
            name = f"{make.__name__}, {100 * accuracy:.1f} %, {norm}"
            report(name, space, images, flips, norm=norm)
            if make is one_lipschitz:
                constant = lipschitz(model, images[0], norm)
                report(f"{name}, lipschitz=", space, images, flips, constant=constant, norm=norm)


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
    parser.add_argument("--other-images", type=int, default=50)
    parser.add_argument("--demo-images", type=int, default=1)
    args = parser.parse_args()
    if args.images:
        small_network(args.images)
    if args.other_images:
        other_networks(args.other_images)
    if args.demo_images:
        demo_network(args.demo_images)


if __name__ == "__main__":
    main()
