"""Numbers of images and steps of the section on pixels, by the time that a pass takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.space import FeatureSpace

SECONDS = 40.0
"""Time for the passes through the model, as far as smaller samples can keep it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sample sizes and step limits of the section on pixels.

    Attributes
    ----------
    flips, flip_steps : int
        Number of images whose flip image is searched for, and limit of gradients for each.
    inverses, inverse_steps : int
        Number of images whose features are inverted, and number of gradients for each.
    morphs, frames, frame_steps : int
        Number of morphs, of frames of each, and of gradients per frame.
    ranked, directions, move_steps : int
        Number of ranked images, of random directions, and of steps of the worst move.
    sampled, sampled_flips, pairs, path_points : int
        Arguments of :func:`fsboundary.analysis.two_spaces`: sample, flips, pairs and points.
    training : int
        Number of training images there.
    """

    flips: int = 6
    flip_steps: int = 80
    inverses: int = 3
    inverse_steps: int = 250
    morphs: int = 2
    frames: int = 9
    frame_steps: int = 60
    ranked: int = 40
    directions: int = 8
    move_steps: int = 10
    sampled: int = 40
    sampled_flips: int = 5
    pairs: int = 40
    path_points: int = 11
    training: int = 300


FULL = Sizes()
MINIMUM = Sizes(
    flips=3,
    flip_steps=60,
    inverses=1,
    inverse_steps=100,
    morphs=1,
    frames=5,
    frame_steps=20,
    ranked=8,
    directions=4,
    move_steps=5,
    sampled=20,
    sampled_flips=2,
    pairs=10,
    path_points=7,
    training=100,
)

_PIXELS = 1 << 24
"""Largest number of values of all training images in the comparison of two spaces."""


_TIMED = 4
"""Number of images per timed pass, and of timed passes, of which the fastest counts."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Time for the section, what one gradient takes, and the sizes that follow.

    Attributes
    ----------
    seconds : float
    seconds_per_gradient : float
        Time of a forward and a backward pass, per image, measured here and now.
    sizes : Sizes
    """

    seconds: float
    seconds_per_gradient: float
    sizes: Sizes

    def numbers(self) -> dict[str, Any]:
        """Return what the page says about the budget."""
        gradients = num_gradients(self.sizes)
        reduced = num_gradients(FULL) > gradients
        # no measured time where it changed nothing, so that numbers are then reproducible
        spent = self.seconds_per_gradient if reduced else None
        return {
            "seconds": self.seconds,
            "gradients": gradients,
            "reduced": reduced,
            "seconds_per_gradient": spent,
            "expected_seconds": None if spent is None else gradients * spent,
        }


def num_gradients(sizes: Sizes) -> int:
    """Return about how many gradients a section of `sizes` takes, three forward passes as one."""
    flips = 2 * sizes.flips * sizes.flip_steps  # as many gradients as forward passes, and walks
    inverses = 2 * sizes.inverses * (sizes.inverse_steps + _POLISH)
    morphs = sizes.morphs * max(0, sizes.frames - 2) * (sizes.frame_steps + _POLISH)
    moves = sizes.ranked * (sizes.directions // 3 + 3 * sizes.move_steps)
    spaces = 100 * sizes.sampled_flips + (sizes.pairs * sizes.path_points + sizes.training) // 3
    return flips + inverses + morphs + moves + spaces


_POLISH = 100
"""Gradients of the last digits of an image with given features: those of a linear system."""


def budget_for(space: FeatureSpace, image: Tensor) -> Budget:
    """Return the budget for a model and images (C, H, W) such as `image`.

    The cost is measured, because operations say little: two models of as many can differ by ten
    times, and so can one on free and on busy cores. Sizes are halved until they fit into the time,
    so that reports of the same model on the same machine usually have the same.
    """
    spent = _seconds_per_gradient(space, image)
    scale = 1.0
    sizes = _scaled(scale, image)
    while num_gradients(sizes) * spent > SECONDS and sizes != _scaled(0.0, image):
        scale /= 2
        sizes = _scaled(scale, image)
    return Budget(seconds=SECONDS, seconds_per_gradient=spent, sizes=sizes)


def _scaled(scale: float, image: Tensor) -> Sizes:
    counts = {
        name: max(getattr(MINIMUM, name), round(scale * getattr(FULL, name)))
        for name in Sizes.__dataclass_fields__
    }
    counts["training"] = max(3, min(counts["training"], _PIXELS // image.numel()))
    return Sizes(**counts)


def _seconds_per_gradient(space: FeatureSpace, image: Tensor) -> float:
    """Return the time of a forward and a backward pass of one of several images."""
    images = image.expand(_TIMED, *image.shape)
    fastest = float("inf")
    # the first pass may prepare what the others use
    for _ in range(_TIMED + 1):
        start = time.perf_counter()
        with torch.enable_grad():
            x = images.clone().requires_grad_(True)
            torch.autograd.grad(space.features(x).sum(), x)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / _TIMED


def has_pixel_gradients(space: FeatureSpace, image: Tensor) -> bool:
    """Return whether the features of an image (C, H, W) have a gradient in its pixels."""
    with torch.enable_grad():
        x = image[None].clone().requires_grad_(True)
        z = space.features(x)
        return z.requires_grad and torch.autograd.grad(z.sum(), x, allow_unused=True)[0] is not None


def stratified_sample(rows: Tensor, labels: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` random `rows`, distributed as evenly as possible over their `labels`."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    sizes = torch.bincount(labels)
    first = sizes.cumsum(0) - sizes
    index_in_class = torch.arange(len(rows)) - first[labels[order]]
    chosen: Tensor = rows[order[index_in_class.argsort(stable=True)[:count]]]
    return chosen


def evenly_spaced(rows: Tensor, count: int) -> Tensor:
    """Return `count` evenly spaced `rows`, including the first and the last."""
    if len(rows) <= count:
        return rows
    indices = torch.linspace(0, len(rows) - 1, count).round().long()
    chosen: Tensor = rows[indices]
    return chosen
