"""Validation of the arguments of attribution comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsboundary.attr.comparison.metrics import METRICS
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.models.images import check_batch_size
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


def check_comparison_options(
    images: Tensor,
    names: tuple[str, ...],
    *,
    reference: str,
    metrics: Sequence[str],
    space: FeatureSpace | nn.Module | None,
    flips: FlipImages | Tensor | None,
    baselines: float | FlipImages | Tensor,
    bounds: tuple[float, float],
    top_fraction: float,
    confidence: float,
    batch_size: int,
    **counts: int,
) -> ComparisonOptions:
    """Return the validated options of ``compare`` for attributions `names`, or raise."""
    metric_names, reference = _check_metrics(metrics), _check_reference(reference, names)
    baseline_images = _check_images_like("baselines", baselines, images)
    boundary_images = None if flips is None else _check_images_like("flips", flips, images)
    _check_fraction("top_fraction", top_fraction, allow_one=True)
    _check_fraction("confidence", confidence)
    limits = check_bounds(bounds)
    for name, count in counts.items():
        check_count(name, count, 2 if name == "steps" else 1)
    check_batch_size(batch_size)
    view = None if space is None else space_of(space)
    if view is not None and boundary_images is None:
        check_pixels(images, limits)
    return ComparisonOptions(
        metric_names, reference, view, boundary_images, baseline_images, limits
    )


def check_image_batch(images: object) -> Tensor:
    """Return `images` detached, or raise ArgumentError unless they are floats (B,C,H,W)."""
    wanted = "a float tensor (B, C, H, W)"
    if not isinstance(images, Tensor):
        raise ArgumentError("images", type(images).__name__, wanted, "stack the images")
    if not images.is_floating_point() or images.ndim != 4:
        got = f"{images.dtype} of shape {tuple(images.shape)}"
        raise ArgumentError("images", got, wanted, "call .float(); a single image needs [None]")
    if 0 in images.shape:
        got = f"shape {tuple(images.shape)}"
        raise ArgumentError("images", got, "at least one image and pixel", "pass some images")
    return images.detach()


def check_attributions(images: Tensor, attributions: object) -> AttributionStack:
    """Return the attributions of `images`, or raise ArgumentError."""
    if not isinstance(attributions, Mapping) or len(attributions) == 0:
        got = "none" if isinstance(attributions, Mapping) else f"a {type(attributions).__name__}"
        wanted = "a dict of tensors by name"
        raise ArgumentError("attributions", got, wanted, "pass {'IG': ig.attribute(images), ...}")
    for name, value in attributions.items():
        argument = f"attributions[{name!r}]"
        if not isinstance(name, str) or not name:
            raise ArgumentError(argument, f"the name {name!r}", "a string", "name it by its method")
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ArgumentError(argument, got, "a float tensor", "pass what attribute() returns")
        if value.shape != images.shape:
            raise ArgumentError(
                argument,
                f"shape {tuple(value.shape)}",
                f"{tuple(images.shape)}, that of the images",
                "attribute to the pixels; resize a layer's attribution to the images' size with "
                "LayerAttribution.interpolate and expand its channels",
            )
    values = [value.detach().to(images.device, torch.float64) for value in attributions.values()]
    stacked = torch.stack(values)
    flat = stacked.flatten(2)
    equal = (flat == flat[:, :, :1]).all(dim=2)
    status = torch.where(equal, int(Status.DEGENERATE), int(Status.CONVERGED))
    status[~torch.isfinite(flat).all(dim=2)] = int(Status.NOT_FINITE)
    return AttributionStack(tuple(attributions), stacked, status)


def _check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the metrics without duplicates, or raise ArgumentError."""
    wanted = f"some of {', '.join(map(repr, METRICS))}"
    if isinstance(metrics, str) or not metrics:
        fix = "pass a tuple, or leave it out for all"
        raise ArgumentError("metrics", repr(metrics), wanted, fix)
    for name in metrics:
        if name not in METRICS:
            raise ArgumentError("metrics", repr(name), wanted, "leave it out for all")
    return tuple(dict.fromkeys(metrics))


def _check_reference(reference: str, names: tuple[str, ...]) -> str:
    """Return the name of the reference; "" if it is "boundary" and not among `names`."""
    if reference in names:
        return reference
    if reference != "boundary":
        wanted = f"'boundary' or one of {', '.join(map(repr, names))}"
        raise ArgumentError("reference", repr(reference), wanted, "name one of the attributions")
    return ""


def _check_images_like(name: str, value: object, images: Tensor) -> Tensor:
    """Return argument `name`, a number or a tensor like `images`, as a tensor like `images`."""
    if isinstance(value, FlipImages):
        value = value.images
    if isinstance(value, int | float):
        return torch.full_like(images, float(value))
    if isinstance(value, Tensor) and value.shape == images.shape:
        return value.detach().to(images)
    got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    wanted = f"a tensor of the images' shape {tuple(images.shape)}"
    raise ArgumentError(name, got, wanted, "pass one image for each image")


def _check_fraction(name: str, value: float, *, allow_one: bool = False) -> float:
    """Return `value`, or raise ArgumentError unless it is in (0, 1), or 1 if `allow_one`."""
    if not (0 < value < 1 or (allow_one and value == 1)):
        wanted = "a number in (0, 1]" if allow_one else "a number in (0, 1)"
        raise ArgumentError(name, repr(value), wanted, "leave it out")
    return float(value)


def check_count(name: str, value: int, minimum: int) -> int:
    """Return `value`, or raise ArgumentError unless it is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        wanted = f"a whole number, at least {minimum}"
        raise ArgumentError(name, repr(value), wanted, "leave it out")
    return value
