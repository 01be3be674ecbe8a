"""Flip images for the methods that compare an image with the one on the boundary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fsboundary.attr.methods.arguments import as_tuple
from fsboundary.attr.methods.flip_direction import Aim, warn, watched_features
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import over_rows
from fsboundary.pixels import flip_images
from fsboundary.space import FeatureSpace

Finder = Callable[[Tensor, Tensor], Tensor]
"""Images (B,...), targets (B,) -> images on the boundary (B,...), NaN where none was found."""

BATCH = 64
"""Images for which flip images are sought at once, unless the caller says."""


_WIDER = 8
"""Ranges grow by this part of their width: few groups of rows, none much wider than it must be."""

_ROUNDING = 1e-6
"""Share of the width by which pixels may leave the range and are put back: no more than rounding
of a normalisation does."""


def check_finder(finder: object) -> None:
    """Raise ArgumentError unless `finder` can be called, or is None."""
    if not (finder is None or callable(finder)):
        fix = "leave it out for fsboundary.pixels.flip_images"
        raise ArgumentError("finder", repr(finder), "a function of images and targets", fix)


def finder_of(space: FeatureSpace, finder: Finder | None, bounds: tuple[float, float]) -> Finder:
    """Return `finder`, or the search for flip images within `bounds` where it is None."""
    return finder or partial(_searched, space, bounds)


def _searched(
    space: FeatureSpace, bounds: tuple[float, float], images: Tensor, target: Tensor
) -> Tensor:
    """Return flip images, NaN where none was found.

    Images that leave the bounds, as those with noise do, have a range of their own, wider on both
    sides by as many eighths as they need: what a row gets does not depend on the others.
    """
    width = bounds[1] - bounds[0]
    low, high = torch.tensor(bounds, dtype=images.dtype, device=images.device)
    flat = images.flatten(1)
    out = torch.maximum(low - flat, flat - high).amax(dim=1).double() / width
    parts = torch.where(out <= _ROUNDING, 0, (out * _WIDER).ceil())
    # the others have no flip image, and a search would refuse them
    fine = torch.isfinite(flat).all(dim=1) & (target >= 0)
    found = torch.full_like(images, torch.nan)
    for count in parts[fine].unique().tolist():
        rows = fine & (parts == count)
        more = count / _WIDER * width
        limits = (bounds[0] - more, bounds[1] + more)
        near = images[rows].clamp(*limits)
        found[rows] = flip_images(space, near, target[rows], bounds=limits).images
    return found


def given_flips(
    inputs: tuple[Tensor, ...],
    additional: tuple[Any, ...],
    baselines: object,
    finder: Finder | None,
) -> tuple[Tensor, ...]:
    """Return the flip images that the caller gave, () if they are to be found, or raise."""
    if baselines is not None:
        ends = as_tuple("baselines", baselines)
        _check_shapes(inputs, ends, "baselines")
        return ends
    if len(inputs) > 1 or (additional and finder is None):
        raise ArgumentError(
            "baselines",
            "none, for a model with several inputs or additional arguments",
            "flip images of the same shapes as the inputs",
            "find them yourself and pass them as baselines",
        )
    return ()


def flips_of(
    space: FeatureSpace,
    inputs: tuple[Tensor, ...],
    additional: tuple[Any, ...],
    goal: Aim,
    given: tuple[Tensor, ...],
    finder: Finder,
) -> tuple[Tensor, ...]:
    """Return an image on the boundary for each row of `inputs`: given, or found.

    Rows without one are NaN, with a warning; or the image itself, where the features do not react
    to it and so no search could find one.
    """
    ends = given
    if not given:
        images = inputs[0].detach()
        ends = (finder(images, goal.target.to(images.device)),)
        _check_shapes(inputs, ends, "what finder returned")
    ends = tuple(e.detach().to(x) for e, x in zip(ends, inputs, strict=True))
    lost = torch.stack([torch.isnan(e).flatten(1).any(dim=1) for e in ends]).any(dim=0)
    if bool(lost.any()):
        flat = lost & _flat(space, inputs, additional, goal.unit).to(lost.device)
        if bool(flat.any()):
            warn("no flip image, for the features do not react: the image stands for it", flat)
        ends = tuple(
            torch.where(over_rows(flat, e), x, e) for e, x in zip(ends, inputs, strict=True)
        )
        lost = lost & ~flat
    if bool(lost.any()):
        warn("no flip image was found: the attribution is NaN", lost)
    return tuple(e.masked_fill(over_rows(lost, e), torch.nan) for e in ends)


def _check_shapes(inputs: tuple[Tensor, ...], ends: tuple[Tensor, ...], name: str) -> None:
    came, wanted = ([tuple(x.shape) for x in parts] for parts in (ends, inputs))
    if came != wanted:
        fix = "give one flip image for each image"
        raise ArgumentError(name, f"shapes {came}", f"shapes {wanted}", fix)


def _flat(
    space: FeatureSpace, inputs: tuple[Tensor, ...], additional: tuple[Any, ...], unit: Tensor
) -> Tensor:
    """Return the rows (B,) whose features do not move along `unit` (B,d) with any input.

    None where the model has no gradients that could tell.
    """
    leaves, features = watched_features(space, inputs, additional)
    still = torch.zeros(len(unit), dtype=torch.bool, device=unit.device)
    if not features.requires_grad:
        return still
    grads = torch.autograd.grad(features, leaves, unit.to(features), allow_unused=True)
    moved = [(g != 0).flatten(1).any(dim=1) for g in grads if g is not None]
    return ~torch.stack([still, *(rows.to(still.device) for rows in moved)]).any(dim=0)
