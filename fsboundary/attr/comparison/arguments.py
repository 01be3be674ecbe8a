"""Validation of the arguments of attribution comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsboundary.attr.comparison.metrics import METRICS
from fsboundary.core.checks import (
    check_choice,
    check_float_tensor,
    check_instance,
    check_integer,
    check_number,
    check_shape,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipImages
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.space import FeatureSpace, space_of


class AttributionStack(NamedTuple):
    """Attributions (M,B,C,H,W) in float64, their names and their status (M,B)."""

    names: tuple[str, ...]
    values: Tensor
    status: Tensor


class ComparisonOptions(NamedTuple):
    """Validated options of a comparison, without the plain numbers; flips are None if not given."""

    metrics: tuple[str, ...]
    reference: str
    space: FeatureSpace | None
    flips: Tensor | None
    baselines: Tensor
    bounds: tuple[float, float]


def comparison_options(
    images: Tensor,
    names: tuple[str, ...],
    *,
    reference: str,
    metrics: Sequence[str],
    space: FeatureSpace | nn.Module | None,
    flips: FlipImages | TensorOrArray | None,
    baselines: float | FlipImages | TensorOrArray,
    bounds: tuple[float, float],
    top_fraction: float,
    confidence: float,
    batch_size: int,
    **counts: int,
) -> ComparisonOptions:
    """Return the validated options of ``compare`` for attributions `names`, or raise."""
    if isinstance(metrics, str) or not metrics:
        wanted = f"some of {', '.join(map(repr, METRICS))}"
        fix = "pass a tuple, or leave it out for all"
        raise ArgumentError("metrics", repr(metrics), wanted, fix)
    metric_names = dict.fromkeys(check_choice("metrics", name, METRICS) for name in metrics)
    if reference not in names:
        check_choice("reference", reference, ("boundary", *names))
        reference = ""  # no attribution has the name "boundary"
    baseline_images = _images_like("baselines", baselines, images)
    boundary_images = None if flips is None else _images_like("flips", flips, images)
    fix = "leave it out"
    check_number("top_fraction", top_fraction, 0, 1, closed="high", fix=fix)
    check_number("confidence", confidence, 0, 1, fix=fix)
    limits = check_bounds(bounds)
    for name, count in counts.items():
        check_integer(name, count, 2 if name == "steps" else 1)
    check_integer("batch_size", batch_size)
    view = None if space is None else space_of(space)
    if view is not None and boundary_images is None:
        check_pixels(images, limits)
    return ComparisonOptions(
        tuple(metric_names), reference, view, boundary_images, baseline_images, limits
    )


def stack_attributions(images: Tensor, attributions: object) -> AttributionStack:
    """Return the attributions of `images` in one tensor, with their status, or raise."""
    wanted, fix = "a dict of tensors by name", "pass {'IG': ig.attribute(images), ...}"
    named = check_instance("attributions", attributions, Mapping, wanted, fix)
    if not named:
        raise ArgumentError("attributions", "none", wanted, fix)
    values = []
    for name, value in named.items():
        argument = f"attributions[{name!r}]"
        if not isinstance(name, str) or not name:
            raise ArgumentError(argument, f"the name {name!r}", "a string", "name it by its method")
        fix = (
            "pass what attribute() returns for the pixels; resize a layer's attribution to the "
            "images' size with LayerAttribution.interpolate and expand its channels"
        )
        found = check_float_tensor(argument, value, tuple(images.shape), fix=fix)
        values.append(found.to(images.device, torch.float64))
    stacked = torch.stack(values)
    flat = stacked.flatten(2)
    equal = (flat == flat[:, :, :1]).all(dim=2)
    status = torch.where(equal, int(Status.DEGENERATE), int(Status.CONVERGED))
    status[~torch.isfinite(flat).all(dim=2)] = int(Status.NOT_FINITE)
    return AttributionStack(tuple(named), stacked, status)


def _images_like(name: str, value: object, images: Tensor) -> Tensor:
    """Return argument `name`, a number or a tensor like `images`, as a tensor like `images`."""
    if isinstance(value, FlipImages):
        value = value.images
    if isinstance(value, int | float):
        return torch.full_like(images, float(value))
    shape, fix = tuple(images.shape), "pass one image for each image"
    return check_shape(name, value, shape, fix=fix).to(images)
