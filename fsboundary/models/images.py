"""Checks, batching and device placement of images before they reach a model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError

_WANTED = "a floating-point tensor (B, ...), such as (B,C,H,W)"


def check_images(images: object) -> None:
    """Raise ArgumentError unless `images` is a floating-point tensor with a batch dimension."""
    if not isinstance(images, Tensor):
        fix = "convert it, for example with torch.as_tensor, and scale it as in training"
        raise ArgumentError("images", f"a {type(images).__name__}", _WANTED, fix)
    if images.dtype == torch.uint8:
        fix = "divide by 255 (images.float() / 255), and scale as in training or in preprocess="
        raise ArgumentError("images", "dtype torch.uint8", _WANTED, fix)
    if not images.is_floating_point():
        fix = "convert with .float(), and scale as in training"
        raise ArgumentError("images", f"dtype {images.dtype}", _WANTED, fix)
    if images.ndim < 2:
        fix = "pass a batch; a single image needs [None]"
        raise ArgumentError("images", f"shape {tuple(images.shape)}", _WANTED, fix)


def check_batch_size(size: object) -> None:
    """Raise ArgumentError unless `size` is a positive integer."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        fix = "choose how many images fit into memory at once, such as 256"
        raise ArgumentError("batch_size", repr(size), "a positive integer", fix)


def slice_arguments(additional: tuple[Any, ...], rows: int, part: slice | Tensor) -> Iterator[Any]:
    """Yield `additional`, with `part` taken of the tensors of B = `rows` rows."""
    for value in additional:
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows
        yield value[part] if batched else value


def device_of(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Return the device of the first parameter or buffer of `module`, or `otherwise`."""
    tensors = chain(module.parameters(), module.buffers())
    return next((t.device for t in tensors), otherwise)
