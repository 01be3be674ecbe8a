"""How many images and steps the section on pixels takes, by what the model costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fsboundary.space import FeatureSpace

AFFORDABLE = 5e7
"""A model of so many operations an image is studied in full; a dearer one with fewer images."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts of the section on pixels.

    Attributes
    ----------
    flips, flip_steps : int
        Images whose flip image is looked for, and gradients for each at most.
    inverses, inverse_steps : int
        Images whose features are inverted, and gradients for each.
    morphs, frames, frame_steps : int
        Paths, frames of each, and gradients for a frame.
    moved, directions, move_steps : int
        Images that are ranked, random directions, and steps of the worst one.
    compared, edges, pairs, points : int
        Of :func:`fsboundary.analysis.two_spaces`: sample, flips, pairs and points.
    learned : int
        Training images there.
    """

    flips: int = 6
    flip_steps: int = 80
    inverses: int = 3
    inverse_steps: int = 250
    morphs: int = 2
    frames: int = 9
    frame_steps: int = 60
    moved: int = 40
    directions: int = 8
    move_steps: int = 10
    compared: int = 40
    edges: int = 5
    pairs: int = 40
    points: int = 11
    learned: int = 300


FULL = Sizes()
LEAST = Sizes(
    flips=3,
    flip_steps=60,
    inverses=1,
    inverse_steps=100,
    morphs=1,
    frames=5,
    frame_steps=20,
    moved=8,
    directions=4,
    move_steps=5,
    compared=20,
    edges=2,
    pairs=10,
    points=7,
    learned=100,
)

_PIXELS = 1 << 24
"""The training images of the table of two spaces have no more values than this together."""


def sizes_for(space: FeatureSpace, image: Tensor) -> Sizes:
    """Return the sizes for a model and images (C, H, W) such as `image`.

    The cost is counted in operations, not in seconds, so that a report can be repeated.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        space.logits(image[None])
    share = min(1.0, AFFORDABLE / max(1, counter.get_total_flops()))
    counts = {
        name: max(getattr(LEAST, name), round(share * getattr(FULL, name)))
        for name in Sizes.__dataclass_fields__
    }
    counts["learned"] = max(3, min(counts["learned"], _PIXELS // image.numel()))
    return Sizes(**counts)


def passes_gradients(space: FeatureSpace, image: Tensor) -> bool:
    """Return whether the features of an image (C, H, W) have a gradient by its pixels."""
    with torch.enable_grad():
        x = image[None].clone().requires_grad_(True)
        z = space.features(x)
        return z.requires_grad and torch.autograd.grad(z.sum(), x, allow_unused=True)[0] is not None


def drawn(rows: Tensor, owners: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` of `rows` at random, as evenly as can be over their classes `owners`."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    order = order[owners[order].argsort(stable=True)]
    sizes = torch.bincount(owners)
    first = sizes.cumsum(0) - sizes
    turn = torch.arange(len(rows)) - first[owners[order]]  # place within the class
    chosen: Tensor = rows[order[turn.argsort(stable=True)[:count]]]
    return chosen


def spread(rows: Tensor, count: int) -> Tensor:
    """Return `count` of `rows`, evenly spread, with the first and the last among them."""
    if len(rows) <= count:
        return rows
    places = torch.linspace(0, len(rows) - 1, count).round().long()
    chosen: Tensor = rows[places]
    return chosen
