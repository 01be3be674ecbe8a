"""What an image processor does to images, as differentiable operations on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fsboundary as fsb

_MODES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for the ways to resize that torch has too."""


def settings(processor: Any) -> dict[str, Any]:
    """Return the options of an extractor that stands for `processor`.

    Raises
    ------
    ArgumentError
        It crops or pads, or its resizing keeps the aspect: do that to the images beforehand.
    """
    told = processor.to_dict()
    for step in ("do_center_crop", "do_pad"):
        if told.get(step):
            raise _unlike(f"one with {step}")
    options: dict[str, Any] = {}
    if told.get("do_resize", False):
        size = told.get("size") or {}
        if "height" not in size or "width" not in size:
            raise _unlike(f"one that resizes to {size}")
        if told.get("resample", 2) not in _MODES:
            raise _unlike(f"one that resamples by {told['resample']}")
        options["size"] = (size["height"], size["width"])
    if told.get("do_normalize", False):
        options["mean"] = tuple(map(float, told["image_mean"]))
        options["std"] = tuple(map(float, told["image_std"]))
    return options


def processed(
    images: Tensor, size: tuple[int, int] | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Return `images` (B,C,H,W) resized (bilinear, with antialiasing) and normalised."""
    if size is not None and tuple(images.shape[-2:]) != tuple(size):
        images = torch.nn.functional.interpolate(
            images, size, mode="bilinear", antialias=True, align_corners=False
        )
    if (mean, std) == ((0.0,), (1.0,)):
        return images
    less, by = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images - less) / by


def _unlike(got: str) -> fsb.ArgumentError:
    wanted = "a processor that resizes to a height and width, rescales and normalises"
    fix = "crop or pad the images beforehand, and pass size=, mean= and std= to HuggingFace"
    return fsb.ArgumentError("processor", got, wanted, fix)
