"""Checks, batching and device placement of inputs before they reach a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fsboundary.core.checks import check_float_tensor
from fsboundary.core.errors import ArgumentError


def check_images(images: object, name: str = "images") -> None:
    """Raise ArgumentError unless `images` is a float tensor with a batch dimension."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        fix = "divide by 255 (images.float() / 255), and scale as in training or in preprocess="
        raise ArgumentError(name, "dtype torch.uint8", "a float tensor (B, ...)", fix)
    fix = "pass torch.as_tensor(batch), scaled as in training; a single image needs [None]"
    check_float_tensor(name, images, ("B", ...), fix=fix)


def num_rows(arguments: object) -> int:
    """Return the first dimension B of the first tensor in `arguments`, 0 if there is none.

    Parameters
    ----------
    arguments : object
        A tensor, or a tuple, list or mapping of tensors and of such.
    """
    leaves = [arguments] if isinstance(arguments, Tensor) else pytree.tree_leaves(arguments)
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.ndim > 0:
            return len(leaf)
        if isinstance(leaf, Mapping) and leaf:
            return num_rows(dict(leaf))
    return 0


def slice_arguments(additional: tuple[Any, ...], rows: int, part: slice | Tensor) -> Iterator[Any]:
    """Yield `additional`, with `part` taken of the tensors of B = `rows` rows."""
    for value in additional:
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows
        yield value[part] if batched else value


def device_of(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Return the device of the first parameter or buffer of `module`, or `otherwise`."""
    tensors = chain(module.parameters(), module.buffers())
    return next((t.device for t in tensors), otherwise)
