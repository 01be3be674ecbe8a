"""Rows of results: the dimensions of the fields by name, and indices of rows."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import from_array

_SHAPE = re.compile(r"""\[Tensor, ["']([^"']*)["']\]""")


@cache
def dimensions(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of the dimensions of each tensor of a result class, as it annotates them.

    Examples
    --------
    >>> from fsboundary import FeatureBatch
    >>> dimensions(FeatureBatch)["features"]
    ('B', 'd')
    """
    found = {f.name: _SHAPE.search(str(f.type)) for f in dataclasses.fields(kind)}
    return {name: tuple(text[1].split()) for name, text in found.items() if text is not None}


def row_index(index: object, count: int) -> slice | Tensor:
    """Return `index` into `count` rows as a slice, or as a mask or integers in a tensor (N,).

    An integer becomes a slice of one row: a result keeps its shape.

    Raises
    ------
    ArgumentError
        Not an integer, slice, mask or list of integers, or a mask of another length.
    IndexError
        A row that does not exist, as for a list.
    """
    if isinstance(index, slice):
        # torch has no negative steps
        step = index.step is not None and index.step < 0
        return torch.tensor(list(range(count)[index]), dtype=torch.int64) if step else index
    index = from_array(index)
    if isinstance(index, Tensor) and index.ndim == 0 and index.dtype != torch.bool:
        index = index.item()
    if isinstance(index, int | np.integer) and not isinstance(index, bool):
        if not -count <= index < count:
            raise IndexError(f"row {index} of a result with {count} rows")
        start = int(index) % count
        return slice(start, start + 1)
    rows = torch.tensor(index, dtype=None if index else torch.int64) if _is_list(index) else index
    wanted = f"a row from 0 to {count - 1}, a slice, a mask of {count} or a list of rows"
    if not isinstance(rows, Tensor) or rows.ndim != 1 or rows.is_floating_point():
        got = f"shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else repr(index)
        if isinstance(rows, Tensor) and rows.ndim == 1:
            got = f"dtype {rows.dtype}"
        raise ArgumentError("index", got, wanted, "index further dimensions of a field instead")
    if rows.dtype == torch.bool:
        if len(rows) != count:
            raise ArgumentError("index", f"a mask of {len(rows)}", wanted, "pass one bool per row")
        return rows
    rows = rows.long()
    bad = rows[(rows < -count) | (rows >= count)]
    if len(bad):
        raise IndexError(f"row {int(bad[0])} of a result with {count} rows")
    return rows


def _is_list(index: object) -> bool:
    """Return whether `index` is a list or range of integers or of bools."""
    whole = int | np.integer
    return isinstance(index, list | range) and all(isinstance(i, whole) for i in index)
