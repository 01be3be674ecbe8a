"""Flip images as baselines of the methods that compare an image with one on the boundary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.attr.methods.arguments import as_tuple
from fsboundary.attr.methods.flip_direction import FlipDirection, differentiable_features, warn
from fsboundary.core.checks import describe
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.pixels import flip_images
from fsboundary.pixels.checks import check_bounds
from fsboundary.space import FeatureSpace

Finder = Callable[[Tensor, Tensor], Tensor]
"""Images (B,...), targets (B,) -> images on the boundary (B,...), NaN where none was found."""

BATCH = 64
"""Default number of images per search for flip images."""

_FLAT = "no flip image because the features do not react: the image itself is used"

_RANGE_STEPS = 8
"""Ranges grow in steps of the width over this: few groups of rows, none much wider than needed."""

_ROUNDING_RTOL = 1e-6
"""Fraction of the width by which pixels may exceed the range before it is widened; smaller excesses
are clamped, because rounding of a normalisation causes them."""


@final
class FlipBaselines:
    """Flip images of a space: those of the caller, or else those that a search finds.

    Parameters
    ----------
    space : FeatureSpace
    finder : callable or None
        The search; by default that of :func:`fsboundary.pixels.flip_images` within `bounds`.
    bounds : (float, float)

    Raises
    ------
    ArgumentError
        `finder` is not callable, or `bounds` are not two finite numbers, the lower first.
    """

    def __init__(self, space: FeatureSpace, finder: object, bounds: object) -> None:
        limits = check_bounds(bounds)
        if not (finder is None or callable(finder)):
            fix = "leave it out for fsboundary.pixels.flip_images"
            raise ArgumentError("finder", describe(finder), "a function of images and targets", fix)
        self._space, self._finder = space, finder
        self._find = partial(_search_flip_images, space, limits) if finder is None else finder

    def read(
        self, inputs: tuple[Tensor, ...], additional: tuple[Any, ...], baselines: object
    ) -> tuple[Tensor, ...]:
        """Return the flip images that the caller passed, () if they must be searched, or raise."""
        if baselines is not None:
            return as_tuple("baselines", baselines, like=inputs)
        if len(inputs) > 1 or (additional and self._finder is None):
            raise ArgumentError(
                "baselines",
                "none, for a model with several inputs or additional arguments",
                "flip images of the same shapes as the inputs",
                "compute them yourself and pass them as baselines",
            )
        return ()

    def resolve(
        self,
        inputs: tuple[Tensor, ...],
        additional: tuple[Any, ...],
        direction: FlipDirection,
        given: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Return an image on the boundary for each row of `inputs`, as given or by search.

        Rows without one are NaN, with a warning; or the image itself if the features do not react
        to it, so that no search could find one.
        """
        ends = given
        if not given:
            images = inputs[0].detach()
            found = self._find(images, direction.target.to(images.device))
            ends = as_tuple("result of finder", found, like=inputs)
        ends = tuple(e.detach().to(x) for e, x in zip(ends, inputs, strict=True))
        missing = torch.stack([torch.isnan(e).flatten(1).any(dim=1) for e in ends]).any(dim=0)
        if bool(missing.any()):
            insensitive = _insensitive_rows(self._space, inputs, additional, direction.unit)
            flat = missing & insensitive.to(missing.device)
            if bool(flat.any()):
                warn(_FLAT, flat)
            ends = tuple(
                torch.where(unsqueeze_like(flat, e), x, e)
                for e, x in zip(ends, inputs, strict=True)
            )
            missing = missing & ~flat
        if bool(missing.any()):
            warn("no flip image was found: the attribution is NaN", missing)
        return tuple(e.masked_fill(unsqueeze_like(missing, e), torch.nan) for e in ends)


def _search_flip_images(
    space: FeatureSpace, bounds: tuple[float, float], images: Tensor, target: Tensor
) -> Tensor:
    """Return flip images, NaN where none was found.

    An image outside the bounds, for example with added noise, gets its own range, wider on both
    sides by as many eighths as it needs, so that the result of a row does not depend on the others.
    """
    width = bounds[1] - bounds[0]
    low, high = torch.tensor(bounds, dtype=images.dtype, device=images.device)
    flat = images.flatten(1)
    excess = torch.maximum(low - flat, flat - high).amax(dim=1).double() / width
    widenings = torch.where(excess <= _ROUNDING_RTOL, 0, (excess * _RANGE_STEPS).ceil())
    # the others have no flip image, and a search would reject them
    valid = torch.isfinite(flat).all(dim=1) & (target >= 0)
    result = torch.full_like(images, torch.nan)
    for count in widenings[valid].unique().tolist():
        rows = valid & (widenings == count)
        added = count / _RANGE_STEPS * width
        limits = (bounds[0] - added, bounds[1] + added)
        clamped = images[rows].clamp(*limits)
        result[rows] = flip_images(space, clamped, target[rows], bounds=limits).images
    return result


def _insensitive_rows(
    space: FeatureSpace, inputs: tuple[Tensor, ...], additional: tuple[Any, ...], unit: Tensor
) -> Tensor:
    """Return the rows (B,) whose features do not move along `unit` (B,d) with any input.

    All False if the features have no gradient.
    """
    leaves, features = differentiable_features(space, inputs, additional)
    none = torch.zeros(len(unit), dtype=torch.bool, device=unit.device)
    if not features.requires_grad:
        return none
    grads = torch.autograd.grad(features, leaves, unit.to(features), allow_unused=True)
    sensitive = [(g != 0).flatten(1).any(dim=1) for g in grads if g is not None]
    return ~torch.stack([none, *(rows.to(none.device) for rows in sensitive)]).any(dim=0)
