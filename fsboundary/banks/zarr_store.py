"""Bank store on disk: a Zarr v3 group of `features`, `labels` and `ids`, read chunk by chunk.

The files are read without Zarr, because the seal of the bank fixes their format byte by byte.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.banks.records import GROUP, JOURNAL, Journal, read_file, read_seal, sha256
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
    seal : str
        Digest of the group's seal, by which another one is recognised.
    """

    path: str
    rows: range | NDArray[Any]
    seal: str


@final
class ZarrStore(Store):
    """Store of all or some rows of a Zarr group (see :class:`Layout`).

    Parameters
    ----------
    path : Path
        Folder of the group.
    contents : Contents, optional
        Chunks of the group; without it they are opened, and an unfinished bank is rejected.
    rows : Tensor (m,), optional
        Rows of a subset, ascending.

    Raises
    ------
    DataError
        No bank, or a damaged or unfinished one.
    """

    def __init__(
        self, path: Path, contents: Contents | None = None, rows: Tensor | None = None
    ) -> None:
        self._path = path.absolute()  # the process may change its folder
        self._contents = contents or open_contents(self._path)
        self._layout, self._rows = self._contents.layout, rows
        self.seal, self.info = self._contents.seal, self._layout.info
        self.num_features = self._layout.num_features

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the bank again in another process, where nothing has been verified yet."""
        return _reopen, (str(self._path), self.seal, self._rows)

    def __len__(self) -> int:
        return self._contents.rows if self._rows is None else len(self._rows)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the chunks with rows of this store, restricted to these rows."""
        for start, chunk in self._chunks("features"):
            yield start, torch.from_numpy(chunk)

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows` as float64; each chunk is read once."""
        wanted = rows.cpu() if self._rows is None else self._rows[rows.cpu()]
        points = torch.empty(len(wanted), self.num_features, dtype=torch.float64)
        order = wanted.argsort()
        step = self._layout.chunk_rows
        numbers, counts = (wanted[order] // step).unique_consecutive(return_counts=True)
        for number, part in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            chunk = torch.from_numpy(self._contents.read("features", number))
            points[part] = chunk[wanted[part] - number * step].to(torch.float64)
        return points

    def features(self) -> Tensor:
        """Read all features."""
        return self._all("features")

    def labels(self) -> Tensor | None:
        """Read all labels."""
        return self._all("labels") if self._layout.labelled else None

    def ids(self) -> Tensor:
        """Read all ids."""
        return self._all("ids")

    def subset(self, rows: Tensor) -> ZarrStore:
        """Return a view of `rows`."""
        stored = rows if self._rows is None else self._rows[rows]
        return ZarrStore(self._path, self._contents, stored)

    def locate(self, rows: Tensor) -> RowLocation:
        """Return the location on disk of `rows`, ascending and at least one."""
        stored = rows if self._rows is None else self._rows[rows]
        span = range(int(stored[0]), int(stored[-1]) + 1)
        indices = span if len(span) == len(stored) else stored.numpy()
        return RowLocation(str(self._path), indices, self.seal)

    def _all(self, name: str) -> Tensor:
        width = (self.num_features,) if name == "features" else ()
        values: NDArray[Any] = np.empty((len(self), *width), self._layout.dtype_of(name))
        for start, chunk in self._chunks(name):
            values[start : start + len(chunk)] = chunk
        return torch.from_numpy(values)

    def _chunks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield ``(first row in this store, values)`` of one array."""
        step = self._layout.chunk_rows
        if self._rows is None:
            for number in range(-(-self._contents.rows // step)):
                yield number * step, self._contents.read(name, number)
            return
        start = 0
        numbers, counts = (self._rows // step).unique_consecutive(return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            inside = self._rows[start : start + count] - number * step
            yield start, self._contents.read(name, number)[inside.numpy()]
            start += count


def _reopen(path: str, seal: str, rows: Tensor | None) -> ZarrStore:
    """Return the store of the bank at `path`, which must have the seal `seal`."""
    contents = open_contents(Path(path))
    if contents.seal != seal:
        raise DataError(f"{path}: another bank than the one that was pickled. Open it again")
    return ZarrStore(Path(path), contents, rows)


_VERSION = 2
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**20
"""Maximal rows and bytes of a chunk, which a killed extraction has to recompute."""

FILL_VALUES = {"features": float("nan"), "labels": int(np.iinfo(np.int64).min), "ids": -1}
"""Values after the last row of the last chunk. No bank contains these numbers."""

_FIX = "Restore it from a copy, or create the bank again"


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

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return ["features", *["labels"] * self.labelled, "ids"]

    def dtype_of(self, name: str) -> str:
        """Return the dtype of an array."""
        return self.dtype if name == "features" else "int64"

    def chunk_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the chunks of an array; the last one is filled up."""
        return (self.chunk_rows, *[self.num_features] * (name == "features"))

    def chunk_bytes(self, name: str) -> int:
        """Return the number of bytes of each chunk file of an array."""
        return math.prod(self.chunk_shape(name)) * np.dtype(self.dtype_of(name)).itemsize + 4

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group, from which :func:`read_layout` reads the layout."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        origin = values.pop("info")
        values |= {field.name: getattr(origin, field.name) for field in fields(origin)}
        return {_ATTRIBUTES: {"version": _VERSION} | values}


def rows_per_chunk(num_features: int, dtype: str, batch: int = 1) -> int:
    """Return the number of rows per chunk: whole batches, and about 1 MiB or 4,096 rows."""
    rows = min(_ROWS, _BYTES // (num_features * np.dtype(dtype).itemsize))
    return batch * max(1, rows // batch)


def chunk_file(name: str, number: int) -> str:
    """Return the path of a chunk in the folder of its bank, as Zarr names it."""
    return f"{name}/c/{number}" + "/0" * (name == "features")


def encode_chunk(values: NDArray[Any], shape: tuple[int, ...], fill_value: float) -> bytes:
    """Return the bytes of a chunk: little-endian numbers, filled up to `shape`, and a CRC-32C."""
    chunk = np.full(shape, fill_value, values.dtype.newbyteorder("<"))
    chunk[: len(values)] = values
    raw = chunk.tobytes()
    return raw + _crc32c(raw)


def _crc32c(content: Any) -> bytes:
    return struct.pack("<I", google_crc32c.value(content))


@final
class Contents:
    """Chunks of a bank on disk, verified when they are read.

    When this process reads a chunk for the first time, its SHA-256 is compared with the record of
    the bank. Later reads compare its CRC-32C, which is much faster, with that of the first time.

    Parameters
    ----------
    path : Path
        Folder of the bank.
    layout : Layout
        Format of the chunks.
    rows : int
        Number of rows.
    checksums : dict
        SHA-256 of each chunk by its path.
    seal : str
        Digest of the bank's seal; empty if it is unfinished.
    """

    def __init__(
        self, path: Path, layout: Layout, rows: int, checksums: dict[str, str], seal: str = ""
    ) -> None:
        self.layout, self.rows, self.seal = layout, rows, seal
        self._path, self._checksums = path, checksums
        self._verified: dict[str, bytes] = {}

    def read(self, name: str, number: int) -> NDArray[Any]:
        """Read one chunk of an array, or raise a DataError that names it."""
        shape, dtype = self.layout.chunk_shape(name), np.dtype(self.layout.dtype_of(name))
        first = number * shape[0]
        stop = min(first + shape[0], self.rows)
        where = f"{self._path}: array {name!r}, chunk {number} (rows {first} to {stop - 1})"
        file = chunk_file(name, number)
        try:
            raw = read_file(self._path, file, self.layout.chunk_bytes(name))
        except FileNotFoundError as error:
            raise DataError(f"{where} is missing. {_FIX}") from error
        except OSError as error:
            raise DataError(f"{where} is damaged: {error}. {_FIX}") from error
        last = raw[-4:].tobytes()
        if file in self._verified:
            intact = last == self._verified[file] == _crc32c(raw[:-4])
        else:
            intact = sha256(raw) == self._checksums.get(file)
        if not intact:
            raise DataError(
                f"{where} is damaged: it is not the chunk that was written there. {_FIX}"
            )
        self._verified[file] = last
        values = raw[:-4].view(dtype.newbyteorder("<")).reshape(shape)[: stop - first]
        return values.astype(dtype, copy=False)  # a copy only on big-endian machines


def open_contents(path: Path) -> Contents:
    """Return the contents of a complete bank.

    The metadata are compared with the seal; the chunks are when they are read.

    Raises
    ------
    DataError
        The folder is missing, is not a bank, is unfinished or damaged, or was written in another
        format.
    """
    layout, _ = read_layout(path)
    seal = read_seal(path)
    if seal is None:
        rows = Journal(path).rows
        raise DataError(
            f"{path}: an unfinished bank ({rows} rows so far). Finish it with "
            "FeatureSpace.bank(loader, path), called as before"
        )
    damaged = f"{path}: a damaged feature bank:"
    checksums = dict(seal.checksums)
    for file in (GROUP, *(f"{name}/{GROUP}" for name in layout.names)):
        try:
            intact = sha256(read_file(path, file)) == checksums.pop(file, None)
        except OSError as error:
            raise DataError(f"{damaged} {file}: {error}. {_FIX}") from error
        if not intact:
            raise DataError(f"{damaged} {file} was changed after the bank was complete. {_FIX}")
    checksums.pop(JOURNAL, None)
    count = -(-seal.rows // layout.chunk_rows)
    if len(checksums) != count * len(layout.names):
        raise DataError(
            f"{damaged} {len(checksums)} chunks are sealed; {seal.rows} rows have "
            f"{count * len(layout.names)}. {_FIX}"
        )
    contents = Contents(path, layout, seal.rows, checksums, seal.digest)
    for name in layout.names:
        # a false number of rows per chunk is seen here, before memory is allocated for all rows
        chunk = path / chunk_file(name, 0)
        if not chunk.is_file() or chunk.stat().st_size != layout.chunk_bytes(name):
            contents.read(name, 0)  # raises
    return contents


def read_layout(path: Path) -> tuple[Layout, str]:
    """Return the layout of a bank, and the SHA-256 of the file that contains it.

    Raises
    ------
    DataError
        The folder is missing, is not a bank, or was written in another format.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bank. Create it with FeatureSpace.bank(loader, path)")
    try:
        raw = read_file(path, GROUP).tobytes()
        attributes = json.loads(raw)["attributes"][_ATTRIBUTES]
        version = attributes["version"]
    except Exception as error:  # not a group, broken JSON, other attributes: the same to a user
        raise DataError(f"{path}: not a feature bank ({error})") from error
    if type(version) is not int or version != _VERSION:
        fix = "Update fsboundary, or create the bank again"
        if version == 1:
            fix = "That format has no seal, by which damage is recognised: create the bank again"
        raise DataError(
            f"{path}: format {version} of a feature bank; this version reads {_VERSION}. {fix}"
        )
    try:
        origin = {field.name: attributes[field.name] for field in fields(BankInfo)}
        names = [field.name for field in fields(Layout) if field.name != "info"]
        values = {name: attributes[name] for name in names}
        _verify_layout(values, origin)
        return Layout(**values, info=BankInfo(**origin)), sha256(raw)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: a damaged feature bank ({error!r}). Create it again") from error


def _verify_layout(values: dict[str, Any], origin: dict[str, Any]) -> None:
    """Raise ValueError unless the metadata describe a bank."""
    for name in ("num_features", "chunk_rows"):
        if type(values[name]) is not int or values[name] < 1:
            raise ValueError(f"{name}={values[name]!r}")
    if values["dtype"] not in ("float32", "float64"):
        raise ValueError(f"dtype={values['dtype']!r}")
    if type(values["labelled"]) is not bool:
        raise ValueError(f"labelled={values['labelled']!r}")
    for name, value in origin.items():
        if type(value) is not str:
            raise ValueError(f"{name}={value!r}")
