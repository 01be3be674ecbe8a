"""Tables of rows: arrays as tensors, their device, some rows among all, rows of several lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError

TensorOrArray: TypeAlias = Tensor | np.ndarray[Any, np.dtype[Any]]
"""Arguments that are tables of numbers; results are tensors."""


def from_array(value: Any) -> Any:
    """Return a NumPy array of numbers as a tensor of its dtype, and anything else as it is.

    The tensor shares the array's memory where torch can: a tensor that is an argument is not
    copied either. Arrays of objects, texts or extended precision stay arrays.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        # torch has no negative strides, and warns of memory that it must not write to
        if not native.flags.writeable or any(step < 0 for step in native.strides):
            native = native.copy()
        with suppress(TypeError):  # no such dtype in torch
            return torch.from_numpy(native)
    return value


def device_of(function: object, otherwise: torch.device) -> torch.device:
    """Return the device of a module's first parameter or buffer, or `otherwise` for any other."""
    if not isinstance(function, nn.Module):
        return otherwise
    tensors = chain(function.parameters(), function.buffers())
    return next((t.device for t in tensors), otherwise)


def require_float64(name: str, device: torch.device) -> None:
    """Raise ArgumentError if `device`, where argument `name` is, has no float64, such as MPS."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        got, wanted = f"a device without float64, {device}", "one with float64, such as the CPU"
        fix = "call .cpu() on the model and on every tensor: certificates are computed in float64"
        raise ArgumentError(name, got, wanted, fix) from None


def finite_rows(values: Tensor) -> Tensor:
    """Return whether each row of `values` (B,n) is finite, (B,).

    A sum of numbers one of which is NaN or infinite is not finite, and twenty times as fast as a
    look at each. Other sums overflow only with very large numbers, which are looked at.
    """
    finite = torch.isfinite(values.sum(dim=1))
    if not bool(finite.all()):
        finite = torch.isfinite(values).all(dim=1)
    return finite


_NONE: Mapping[str, float] = MappingProxyType({})


def scatter_rows(values: Tensor, rows: Tensor, total: int, fill_value: float = torch.nan) -> Tensor:
    """Return a table of `total` rows with `values` at `rows` and `fill_value` elsewhere.

    Parameters
    ----------
    values : Tensor (F, ...)
    rows : Tensor (F,) or bool Tensor (total,)
        Indices, or a mask with F true entries.
    total : int
    fill_value : float
    """
    shape = (total, *values.shape[1:])
    table = torch.full(shape, fill_value, dtype=values.dtype, device=values.device)
    table[rows] = values
    return table


def write_rows(
    fields: dict[str, Tensor],
    rows: Tensor,
    values: Mapping[str, Tensor],
    padding: Mapping[str, float] = _NONE,
) -> None:
    """Write each of `values` at `rows` of the table of the same name in `fields`.

    Parameters
    ----------
    fields : dict of Tensor (B, ...)
        Changed in place; a table in `padding` may be replaced by a wider one.
    rows : Tensor (F,) or bool Tensor (B,)
        Indices, or a mask with F true entries.
    values : mapping of Tensor (F, ...)
    padding : mapping of float
        Padding of the ragged tables, by name: their last dimensions may differ, and the narrower
        of the two is padded.
    """
    for name, value in values.items():
        if name in padding:
            width = max(fields[name].shape[-1], value.shape[-1])
            if fields[name].shape[-1] < width:
                fields[name] = pad_columns(fields[name], width, padding[name])
            value = pad_columns(value, width, padding[name])
        fields[name][rows] = value


def pad_columns(table: Tensor, width: int, padding: float) -> Tensor:
    """Return `table` (..., S) padded, or cut, to (..., width)."""
    return torch.nn.functional.pad(table, (0, width - table.shape[-1]), value=padding)


def cat_ragged(tables: Sequence[Tensor], padding: float) -> Tensor:
    """Concatenate tables (B_n, ..., S_n) of different widths along their first dimension."""
    width = max(table.shape[-1] for table in tables)
    return torch.cat([pad_columns(table, width, padding) for table in tables])


def stack_ragged(tables: Sequence[Tensor], padding: float, min_width: int = 0) -> Tensor:
    """Stack tables (..., S_n) of different widths, at least `min_width` wide."""
    width = max(min_width, *(table.shape[-1] for table in tables))
    return torch.stack([pad_columns(table, width, padding) for table in tables])
