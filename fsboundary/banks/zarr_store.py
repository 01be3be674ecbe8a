"""Bank store on disk: a Zarr v3 group of `features`, `labels` and `ids`, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import Crc32cCodec

from fsboundary.banks.store import BankInfo, Store
from fsboundary.core.errors import DataError


@final
@dataclass(frozen=True, slots=True)
class RowLocation:
    """Location of rows of a bank on disk, for another process; small if the rows are adjacent.

    Attributes
    ----------
    path : str
        Absolute path of the group.
    rows : range or ndarray (c,)
        Rows of the group, ascending.
    count, width, info
        Size and origin of the group, by which another one is recognised.
    """

    path: str
    rows: range | NDArray[Any]
    count: int
    width: int
    info: BankInfo


@final
class ZarrStore(Store):
    """Store of all or some rows of a Zarr group (see :class:`Layout`).

    Parameters
    ----------
    path : Path
        Folder of the group.
    rows : Tensor (m,), optional
        Rows of a subset, ascending.
    committed : int, optional
        Number of rows that an unfinished bank is known to hold; without it, such a bank is
        rejected.

    Raises
    ------
    DataError
        No bank, or a damaged or unfinished one.
    """

    def __init__(
        self, path: Path, rows: Tensor | None = None, committed: int | None = None
    ) -> None:
        self._arrays, layout, complete = open_arrays(path)
        self._path, self._rows = path, rows
        self._chunk_rows = layout.chunk_rows
        self.num_features, self.info = layout.num_features, layout.info
        lengths = {name: array.shape[0] for name, array in self._arrays.items()}
        if committed is None and not complete:
            raise DataError(
                f"{path}: an unfinished bank ({lengths['features']} rows so far). Finish it with "
                "FeatureSpace.bank(loader, path), called as before"
            )
        self._count = lengths["features"] if committed is None else committed
        unequal = committed is None and len(set(lengths.values())) > 1
        if min(lengths.values()) < self._count or unequal:
            raise DataError(
                f"{path}: arrays of different lengths, {lengths}. Create the bank again"
            )

    def __len__(self) -> int:
        return self._count if self._rows is None else len(self._rows)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the chunks with rows of this store, restricted to these rows."""
        for start, chunk in self._chunks("features"):
            yield start, torch.from_numpy(chunk)

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows` as float64; each chunk is read once."""
        wanted = rows.cpu() if self._rows is None else self._rows[rows.cpu()]
        points = torch.empty(len(wanted), self.num_features, dtype=torch.float64)
        order = wanted.argsort()
        numbers, counts = (wanted[order] // self._chunk_rows).unique_consecutive(return_counts=True)
        for number, part in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            chunk = torch.from_numpy(self._chunk("features", number))
            points[part] = chunk[wanted[part] - number * self._chunk_rows].to(torch.float64)
        return points

    def features(self) -> Tensor:
        """Read all features."""
        return self._all("features")

    def labels(self) -> Tensor | None:
        """Read all labels."""
        return self._all("labels") if "labels" in self._arrays else None

    def ids(self) -> Tensor:
        """Read all ids."""
        return self._all("ids")

    def subset(self, rows: Tensor) -> ZarrStore:
        """Return a view of `rows`."""
        return ZarrStore(self._path, rows if self._rows is None else self._rows[rows])

    def locate(self, rows: Tensor) -> RowLocation:
        """Return the location on disk of `rows`, ascending and at least one."""
        stored = rows if self._rows is None else self._rows[rows]
        span = range(int(stored[0]), int(stored[-1]) + 1)
        indices = span if len(span) == len(stored) else stored.numpy()
        return RowLocation(
            str(self._path.absolute()), indices, self._count, self.num_features, self.info
        )

    def _all(self, name: str) -> Tensor:
        array = self._arrays[name]
        values = np.empty((len(self), *array.shape[1:]), array.dtype)
        for start, chunk in self._chunks(name):
            values[start : start + len(chunk)] = chunk
        return torch.from_numpy(values)

    def _chunks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield ``(first row in this store, values)`` of one array."""
        if self._rows is None:
            for number in range(-(-self._count // self._chunk_rows)):
                yield number * self._chunk_rows, self._chunk(name, number)
            return
        start = 0
        numbers, counts = (self._rows // self._chunk_rows).unique_consecutive(return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            inside = self._rows[start : start + count] - number * self._chunk_rows
            yield start, self._chunk(name, number)[inside.numpy()]
            start += count

    def _chunk(self, name: str, number: int) -> NDArray[Any]:
        """Read one chunk, or raise a DataError that names it."""
        first = number * self._chunk_rows
        part = slice(first, min(first + self._chunk_rows, self._count))
        where = f"{self._path}: array {name!r}, chunk {number} (rows {first} to {part.stop - 1})"
        fix = "Restore it from a copy, or create the bank again"
        try:
            values = np.asarray(self._arrays[name][part])
        except Exception as error:  # codecs and file systems raise exceptions of any type
            raise DataError(f"{where} is damaged: {error}. {fix}") from error
        fill_value = _FILL_VALUES[name]
        if np.all(np.isnan(values) if name == "features" else values == fill_value):
            raise DataError(f"{where} is missing. {fix}")
        return values


_VERSION = 1
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**20
"""Maximal rows and bytes of a chunk, which a killed extraction has to recompute."""

_FILL_VALUES = {"features": float("nan"), "labels": int(np.iinfo(np.int64).min), "ids": -1}
"""Values that Zarr reads where a chunk is missing. No bank contains these numbers."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Properties of a bank on disk that are fixed before the first row is written.

    Attributes
    ----------
    num_features : int
        Width d.
    dtype : str
        Dtype of the features, "float32" or "float64".
    chunk_rows : int
        Number of rows per chunk, the same for all arrays.
    labelled : bool
        Whether there are labels.
    info : BankInfo
        Origin of the features.
    """

    num_features: int
    dtype: str
    chunk_rows: int
    labelled: bool
    info: BankInfo


def rows_per_chunk(num_features: int, dtype: str, batch: int = 1) -> int:
    """Return the number of rows per chunk: whole batches, and about 1 MiB or 4,096 rows."""
    rows = min(_ROWS, _BYTES // (num_features * np.dtype(dtype).itemsize))
    return batch * max(1, rows // batch)


def create(path: Path, layout: Layout) -> None:
    """Write an incomplete group without rows."""
    attributes = {"version": _VERSION, "complete": False, "labelled": layout.labelled}
    group = zarr.create_group(
        store=str(path),
        zarr_format=3,
        attributes={_ATTRIBUTES: attributes | {"dtype": layout.dtype} | asdict(layout.info)},
    )
    dtypes = {"features": layout.dtype, "ids": "int64"}
    if layout.labelled:
        dtypes["labels"] = "int64"
    for name, dtype in dtypes.items():
        width = (layout.num_features,) if name == "features" else ()
        group.create_array(
            name,
            shape=(0, *width),
            chunks=(layout.chunk_rows, *width),
            dtype=dtype,
            fill_value=_FILL_VALUES[name],
            compressors=[Crc32cCodec()],  # only a checksum: features hardly compress
        )


def set_complete(path: Path) -> None:
    """Mark a group as complete, atomically."""
    group = zarr.open_group(str(path), mode="r+")
    attributes: Any = group.attrs[_ATTRIBUTES]
    group.attrs.update({_ATTRIBUTES: attributes | {"complete": True}})


def open_arrays(path: Path, mode: Any = "r") -> tuple[dict[str, zarr.Array[Any]], Layout, bool]:
    """Return the arrays by name, the layout, and whether the bank is complete.

    Raises
    ------
    DataError
        The folder is missing, is not a bank, or was written by a newer version.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bank. Create it with FeatureSpace.bank(loader, path)")
    try:
        group = zarr.open_group(str(path), mode=mode)
        attributes: Any = group.attrs[_ATTRIBUTES]
        version = attributes["version"]
    except Exception as error:  # not a group, broken JSON, other attributes: the same to a user
        raise DataError(f"{path}: not a feature bank ({error})") from error
    if version != _VERSION:
        raise DataError(
            f"{path}: format {version} of a feature bank; this version reads {_VERSION}. "
            "Update fsboundary, or create the bank again"
        )
    try:
        info = BankInfo(**{field.name: attributes[field.name] for field in fields(BankInfo)})
        names = ["features", "ids"] + ["labels"] * attributes["labelled"]
        arrays = {name: _array(group, name) for name in names}
        width = arrays["features"].shape[1]
        rows = arrays["features"].chunks[0]
        layout = Layout(width, attributes["dtype"], rows, attributes["labelled"], info)
        return arrays, layout, attributes["complete"]
    except Exception as error:  # as above
        raise DataError(f"{path}: a damaged feature bank ({error!r}). Create it again") from error


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array
