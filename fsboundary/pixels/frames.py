"""What the model says of frames in a row: classes, where they change, jumps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fsboundary.boundaries import class_path
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.pixels.jacobian import features_of, per_image
from fsboundary.space import FeatureSpace

WITHIN = 1e-4
"""Crossings are located to this in t."""


def first_change(
    space: FeatureSpace, frames: Tensor, predicted: Tensor, times: Tensor, batch_size: int
) -> Tensor:
    """Return t (B,) at which frames (B,N,C,H,W) first leave the class of the first, or NaN.

    Bisected on the straight line between the first two neighbours of different class.
    """
    other = predicted != predicted[:, :1]
    out = torch.full_like(times[:, 0], torch.nan)
    rows = other.any(dim=1).nonzero()[:, 0]
    after = other[rows].long().argmax(dim=1)
    first, second = frames[rows, after - 1], frames[rows, after]
    low, high = times[rows, after - 1], times[rows, after]
    begin, width = low, high - low
    halvings = math.ceil(math.log2(max(1.0, float(width.max()) / WITHIN))) if len(rows) else 0
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        share = per_image((middle - begin) / width, first)
        images = first + share * (second - first)
        left = space.head.predict(features_of(space, images, batch_size)) != predicted[rows, 0]
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
    out[rows] = 0.5 * (low + high)
    return out


def feature_change(head: LinearHead, knots: Tensor, times: Tensor) -> Tensor:
    """Return t (B,) at which polylines through `knots` (B,P,d) first leave the class of the first.

    Computed, not sampled; NaN where they never do or where rounding hides it. `times` (P,).
    """
    out = torch.full_like(knots[:, 0, 0], torch.nan)
    source = None
    for leg in range(len(times) - 1):
        path = class_path(head, knots[:, leg], knots[:, leg + 1])
        source = path.classes[:, 0] if source is None else source
        inside = torch.full_like(out, torch.nan)
        if path.crossings.shape[1]:
            inside = path.crossings[:, 0]
        inside = torch.where(path.classes[:, 0] == source, inside, 0)
        ok = (path.status == Status.CONVERGED) | (path.status == Status.UNDECIDED)
        out = torch.where(
            ok & torch.isnan(out), times[leg] + (times[leg + 1] - times[leg]) * inside, out
        )
    return out


def largest_jump(frames: Tensor) -> Tensor:
    """Return the largest distance between neighbours of frames (B,N,...), (B,), float64."""
    flat = frames.flatten(2).to(torch.float64)
    return (flat[:, 1:] - flat[:, :-1]).square().sum(dim=2).sqrt().amax(dim=1)
