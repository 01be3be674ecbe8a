"""Rows of NumPy and Parquet files, read a block at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.banks.store import BankInfo
from fsboundary.banks.streams import Block, RowStream, stored_dtype
from fsboundary.core.checks import check_labels, describe
from fsboundary.core.errors import ArgumentError, DataError

Path = str | PathLike[str]

_NUMBERS = 2**21
"""Count of numbers read at once, 16 MiB of float64."""


def npy_rows(source: object, labels: object, dtype: torch.dtype | None) -> RowStream:
    """Return the rows of a file of NumPy, or of an array; see ``FeatureBank.from_npy``."""
    array = _open_npy("source", source)
    wanted = "an array (n,d) of float16, float32 or float64, with n and d at least 1"
    if array.ndim != 2 or array.size == 0 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        got = f"shape {array.shape} and dtype {array.dtype}"
        raise ArgumentError("source", got, wanted, "save one row per point, of such a dtype")
    if isinstance(labels, str | PathLike):
        labels = np.array(_open_npy("labels", labels))
    classes = None if labels is None else check_labels(labels, len(array)).cpu()
    step = max(1, _NUMBERS // array.shape[1])

    def blocks() -> Iterator[Block]:
        for start in range(0, len(array), step):
            part = slice(start, start + step)
            # torch has no other order of bytes
            values = np.array(array[part], dtype=array.dtype.newbyteorder("="), order="C")
            ids = torch.arange(start, start + len(values))
            yield torch.from_numpy(values), None if classes is None else classes[part], ids

    itself = getattr(torch, array.dtype.name)
    stored = stored_dtype(itself, dtype)
    return RowStream(array.shape[1], stored, classes is not None, BankInfo(), blocks)


def _open_npy(name: str, source: object) -> NDArray[Any]:
    """Return an array, mapped to memory if it is in a file."""
    fix = "pass the path of a file of numpy.save, or numpy.load(path, mmap_mode='r')"
    if isinstance(source, str | PathLike):
        try:
            found = np.load(source, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            got = f"{os.fspath(source)!r}, which cannot be read ({error})"
            raise ArgumentError(name, got, "a file of one array", fix) from error
        if not isinstance(found, np.ndarray):
            got = f"{os.fspath(source)!r}, which contains several arrays"
            raise ArgumentError(name, got, "a file of one array", fix)
        return found
    if not isinstance(source, np.ndarray):
        raise ArgumentError(name, describe(source), "a path or an array", fix)
    return source


def parquet_rows(
    source: Path | Sequence[Path],
    features: str | Sequence[str],
    labels: str | None,
    dtype: torch.dtype | None,
) -> RowStream:
    """Return the rows of Parquet files; see ``FeatureBank.from_parquet``."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        got, wanted = "a Parquet file, and pyarrow is not installed", "pyarrow"
        fix = "pip install 'fsboundary[parquet]'"
        raise ArgumentError("source", got, wanted, fix) from error
    kinds, fix = str | PathLike, "pass the path of a file, or several in the order of the rows"
    paths = _several("source", source, kinds, "a path, or a list of paths", fix)
    advice = "pass the column of lists, or one column per coordinate"
    columns = _several("features", features, str, "names of columns", advice)

    def read(path: Path, rows: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = [*columns, *([labels] if labels is not None else [])]
            missing = [name for name in wanted if name not in file.schema_arrow.names]
            if missing:
                have = ", ".join(file.schema_arrow.names[:20])
                got = f"{missing}, which {os.fspath(path)!r} does not have"
                raise ArgumentError("features", got, "names of its columns", f"choose among {have}")
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                values = _coordinates([batch.column(name) for name in columns], os.fspath(path))
                classes = None
                if labels is not None:
                    column = batch.column(labels)
                    if column.null_count or not pyarrow.types.is_integer(column.type):
                        got = f"{column.type} with {column.null_count} nulls"
                        fix = "store class numbers; -1 stands for no label"
                        raise ArgumentError("labels", got, "a column of integers", fix)
                    classes = check_labels(np.array(column), len(column))
                if len(values):
                    yield torch.from_numpy(values), classes

    def blocks() -> Iterator[Block]:
        start = 0
        for path in paths:
            for values, classes in read(path, max(1, _NUMBERS // width)):
                if values.shape[1] != width:
                    raise DataError(
                        f"{os.fspath(path)}: rows of width {values.shape[1]}; those before have "
                        f"{width}. Make one bank per layer"
                    )
                yield values, classes, torch.arange(start, start + len(values))
                start += len(values)

    try:
        first = next((values for path in paths for values, _ in read(path, 1)), None)
    except (OSError, pyarrow.ArrowException) as error:
        got = f"a file that cannot be read ({error})"
        raise ArgumentError("source", got, "a Parquet file", fix) from error
    if first is None:
        raise ArgumentError("source", "no rows", "at least one row", "choose other files")
    width = first.shape[1]
    stored = stored_dtype(first.dtype, dtype)
    return RowStream(width, stored, labels is not None, BankInfo(), blocks)


def _several(name: str, value: object, kinds: Any, wanted: str, fix: str) -> list[Any]:
    """Return the values of a sequence, or one value as a list, or raise unless of `kinds`."""
    found = [value] if isinstance(value, kinds) else value
    if not isinstance(found, Sequence) or not found or not all(isinstance(v, kinds) for v in found):
        raise ArgumentError(name, describe(value), wanted, fix)
    return list(found)


def _coordinates(columns: list[Any], path: str) -> NDArray[Any]:
    """Return the points (m,d) of columns of Arrow: one of lists, or one per coordinate."""
    import pyarrow

    rows = len(columns[0])
    kind = columns[0].type
    lists = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    fixed = pyarrow.types.is_fixed_size_list(kind)
    parts = columns
    if len(columns) == 1 and (lists or fixed):
        parts = [columns[0].flatten()]
    fix = "store floating-point numbers, in lists of one length or in one column per coordinate"
    for part, column in zip(parts, columns, strict=True):
        if not pyarrow.types.is_floating(part.type):
            raise ArgumentError("features", f"a column of {column.type} in {path}", "floats", fix)
        if part.null_count or column.null_count:
            raise DataError(f"{path}: nulls among the features. Leave these rows out")
    arrays = [part.to_numpy(zero_copy_only=False) for part in parts]
    if len(columns) > 1 or not (lists or fixed):
        return np.stack(arrays, axis=1)
    width = len(arrays[0]) // max(rows, 1)
    lengths = [kind.list_size] if fixed else columns[0].value_lengths().unique().to_pylist()
    if rows and (width == 0 or lengths != [width]):
        raise DataError(f"{path}: lists of {lengths} numbers. Every row needs the same number")
    return np.array(arrays[0]).reshape(rows, width)
