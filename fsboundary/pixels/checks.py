"""Checks shared by the functions that a user calls with a model and images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.models.images import check_images


def check_bounds(bounds: object) -> tuple[float, float]:
    """Return the pixel bounds as two floats, or raise ArgumentError."""
    wanted = "two finite numbers, the lower first"
    fix = "pass (0, 1), or what the user's own pixels lie between"
    try:
        low, high = (float(b) for b in bounds)  # type: ignore[attr-defined]  # what is no pair raises here
    except (TypeError, ValueError):
        raise ArgumentError("bounds", repr(bounds), wanted, fix) from None
    if not -torch.inf < low < high < torch.inf:
        raise ArgumentError("bounds", repr(bounds), wanted, fix)
    return low, high


def check_pixels(images: object, bounds: tuple[float, float], name: str = "images") -> Tensor:
    """Return argument `name` (B,C,H,W), detached, or raise ArgumentError unless finite ones fit."""
    check_images(images)
    assert isinstance(images, Tensor)
    if images.ndim != 4:
        raise ArgumentError(
            name,
            f"shape {tuple(images.shape)}",
            "(B, C, H, W)",
            "a single image needs [None]",
        )
    images = images.detach()
    finite = images[torch.isfinite(images)]
    edges = torch.tensor(bounds, dtype=images.dtype, device=images.device)
    if finite.numel() and bool(((finite < edges[0]) | (finite > edges[1])).any()):
        raise ArgumentError(
            name,
            f"pixels from {float(finite.min()):.6g} to {float(finite.max()):.6g}",
            f"pixels from {bounds[0]:g} to {bounds[1]:g}",
            "pass bounds=, or scale the images and give the model's own scaling to "
            "FeatureSpace(model, preprocess=...)",
        )
    return images


def check_classes(targets: object, rows: int, num_classes: int) -> Tensor | Literal["nearest"]:
    """Return "nearest" or the target classes (B,), or raise ArgumentError."""
    if isinstance(targets, str) and targets == "nearest":
        return "nearest"
    wanted = f'"nearest" or an integer tensor ({rows},) of classes 0 to {num_classes - 1}'
    fix = "pass torch.full((B,), k) for one class"
    if not isinstance(targets, Tensor):
        raise ArgumentError("targets", repr(targets), wanted, fix)
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ArgumentError("targets", f"dtype {targets.dtype}", wanted, "call .long()")
    if tuple(targets.shape) != (rows,):
        raise ArgumentError("targets", f"shape {tuple(targets.shape)}", wanted, fix)
    if rows and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        got = f"classes from {int(targets.min())} to {int(targets.max())}"
        raise ArgumentError("targets", got, wanted, "count classes from 0")
    return targets.long()
