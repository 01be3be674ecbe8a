"""Numbers of images and steps of the section on pixels, by the cost of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fsboundary.space import FeatureSpace

FULL_STUDY_FLOPS = 5e7
"""FLOPs per image up to which the full study runs; more expensive models use fewer images."""


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


def sizes_for(space: FeatureSpace, image: Tensor) -> Sizes:
    """Return the sizes for a model and images (C, H, W) such as `image`.

    The cost is measured in operations, not in seconds, so that a report is reproducible.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        space.logits(image[None])
    scale = min(1.0, FULL_STUDY_FLOPS / max(1, counter.get_total_flops()))
    counts = {
        name: max(getattr(MINIMUM, name), round(scale * getattr(FULL, name)))
        for name in Sizes.__dataclass_fields__
    }
    counts["training"] = max(3, min(counts["training"], _PIXELS // image.numel()))
    return Sizes(**counts)


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
