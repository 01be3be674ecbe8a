"""Results as columns, and columns as a pandas DataFrame."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.results.base.rows import dimensions
from fsboundary.core.status import Status

if TYPE_CHECKING:
    from fsboundary.core.results.base.table import Table

Columns = dict[str, Any]
"""Columns by name, all of the same length."""


def data_frame(columns: Mapping[str, Any], otherwise: str = "") -> Any:
    """Return a ``pandas.DataFrame`` of `columns`.

    Raises
    ------
    ImportError
        pandas is not installed; `otherwise` says what needs no pandas.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError(
            f"to_pandas needs pandas: pip install 'fsboundary[pandas]'{otherwise}"
        ) from error
    return pandas.DataFrame(dict(columns))


def columns_of(table: Table, values: Mapping[str, Any]) -> Columns:
    """Return one line per entry of a result: positions, numbers, statuses by name.

    Parameters
    ----------
    table : Table
        Result; its status has the dimensions of the entries.
    values : mapping
        Its fields as they are stored: those that are not computed are left out.
    """
    names = dimensions(type(table))
    row = type(table)._row_dimension()
    axes = names.get("status", (row,) if row else ())
    shape = tuple(values["status"].shape) if "status" in values else (len(table),)[: len(axes)]
    columns: Columns = {}
    for axis, label in zip(range(len(shape)), table._AXES, strict=False):
        size = [1] * len(shape)
        size[axis] = shape[axis]
        at = torch.arange(shape[axis]).reshape(size).expand(shape).reshape(-1)
        columns[label] = at.numpy()
    count = int(np.prod(shape, dtype=np.int64))
    for name, value in values.items():
        if name == row:
            columns[name] = list(value)
        elif isinstance(value, Tensor):
            further = names[name][_common(names[name], axes) :]
            if _common(names[name], axes) or not axes:
                columns |= _column(name, value, further, shape, name in table._STATUSES)
        elif isinstance(value, str | int):
            text = value.name if isinstance(value, Status) else value
            columns[name] = [text] * count
    return columns | table._verdicts()


def _common(names: Sequence[str], axes: Sequence[str]) -> int:
    """Return how many of the first dimensions of a field are those of the entries."""
    count = 0
    while count < min(len(names), len(axes)) and names[count] == axes[count]:
        count += 1
    return count


def _column(
    name: str, value: Tensor, further: Sequence[str], shape: tuple[int, ...], is_status: bool
) -> Columns:
    """Return the column of a field, with a list per line for one further dimension.

    Features, and fields with more further dimensions, such as images, are left out.
    """
    if len(further) > 1 or "d" in further:
        return {}
    value = value.detach().cpu()
    value = value.to(torch.float32) if value.dtype in (torch.bfloat16, torch.float16) else value
    known = value.ndim - len(further)
    size, rest = [1] * (len(shape) - known), value.shape[known:]
    repeated = value.reshape((*value.shape[:known], *size, *rest)).expand((*shape, *rest))
    flat = repeated.reshape((int(np.prod(shape, dtype=np.int64)), *rest))
    if further:
        return {name: flat.tolist()}
    if is_status:
        words = np.array([Status(code).name for code in range(len(Status))], dtype=object)
        return {name: words[flat.numpy()]}
    return {name: flat.numpy()}
