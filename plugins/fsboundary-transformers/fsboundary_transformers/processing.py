"""Image processing of transformers as differentiable operations on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fsboundary as fsb

_MODES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the resampling modes that torch supports."""


def processor_options(processor: Any) -> dict[str, Any]:
    """Return the options of an extractor equivalent to `processor`.

    Raises
    ------
    ArgumentError
        The processor crops or pads, or its resizing keeps the aspect ratio: do that beforehand.
    """
    configuration = processor.to_dict()
    for step in ("do_center_crop", "do_pad"):
        if configuration.get(step):
            raise _unsupported(f"one with {step}")
    options: dict[str, Any] = {}
    if configuration.get("do_resize", False):
        size = configuration.get("size") or {}
        if "height" not in size or "width" not in size:
            raise _unsupported(f"one that resizes to {size}")
        if configuration.get("resample", 2) not in _MODES:
            raise _unsupported(f"one that resamples by {configuration['resample']}")
        options["size"] = (size["height"], size["width"])
    if configuration.get("do_normalize", False):
        options["mean"] = tuple(map(float, configuration["image_mean"]))
        options["std"] = tuple(map(float, configuration["image_std"]))
    return options


def process_images(
    images: Tensor, size: tuple[int, int] | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Return `images` (B,C,H,W) resized (bilinear, with antialiasing) and normalised."""
    if size is not None and tuple(images.shape[-2:]) != tuple(size):
        images = torch.nn.functional.interpolate(
            images, size, mode="bilinear", antialias=True, align_corners=False
        )
    if (mean, std) == ((0.0,), (1.0,)):
        return images
    offset, scale = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images - offset) / scale


def _unsupported(got: str) -> fsb.ArgumentError:
    wanted = "a processor that resizes to a height and width, rescales and normalises"
    fix = "crop or pad the images beforehand, and pass size=, mean= and std= to HuggingFace"
    return fsb.ArgumentError("processor", got, wanted, fix)
