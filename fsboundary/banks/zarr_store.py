"""Rows on disk, read one chunk at a time.

How a bank lies on disk: a Zarr v3 group of `features`, `labels` and `ids`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec

from fsboundary.banks.store import BankInfo, Store
from fsboundary.core.errors import DataError


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where to find rows of a bank on disk, for another process; small where they are neighbours.

    Attributes
    ----------
    path : str
        The group, absolute.
    rows : range or ndarray (c,)
        Rows of the group, ascending.
    count, width, info
        Size and origin of the group, to tell another one by.
    """

    path: str
    rows: range | np.ndarray[Any, Any]
    count: int
    width: int
    info: BankInfo


@final
class ZarrStore(Store):
    """Rows of a Zarr group (see `layout`), or some of them.

    Parameters
    ----------
    path : Path
        The group.
    rows : Tensor (m,), optional
        The rows of a subset, ascending.
    committed : int, optional
        How many rows an unfinished bank is known to hold; without it, it is refused.

    Raises
    ------
    DataError
        No bank, a damaged one, or an unfinished one.
    """

    def __init__(
        self, path: Path, rows: Tensor | None = None, committed: int | None = None
    ) -> None:
        self._arrays, about, complete = open_arrays(path)
        self._path, self._rows = path, rows
        self._step, self.num_features, self.info = about.chunk_rows, about.num_features, about.info
        held = {name: array.shape[0] for name, array in self._arrays.items()}
        if committed is None and not complete:
            raise DataError(
                f"{path}: an unfinished bank ({held['features']} rows so far). Finish it with "
                "FeatureSpace.bank(loader, path), called as before"
            )
        self._count = held["features"] if committed is None else committed
        if min(held.values()) < self._count or (committed is None and len(set(held.values())) > 1):
            raise DataError(f"{path}: arrays of different lengths, {held}. Make the bank again")

    def __len__(self) -> int:
        return self._count if self._rows is None else len(self._rows)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the chunks that hold rows of this store, cut to these rows."""
        for start, chunk in self._chunks("features"):
            yield start, torch.from_numpy(chunk)

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows`, in float64; each chunk is read once."""
        wanted = rows.cpu() if self._rows is None else self._rows[rows.cpu()]
        points = torch.empty(len(wanted), self.num_features, dtype=torch.float64)
        order = wanted.argsort()
        numbers, counts = (wanted[order] // self._step).unique_consecutive(return_counts=True)
        for number, places in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            chunk = torch.from_numpy(self._chunk("features", number))
            points[places] = chunk[wanted[places] - number * self._step].to(torch.float64)
        return points

    def features(self) -> Tensor:
        """Read everything."""
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

    def place(self, rows: Tensor) -> Place:
        """Return where `rows`, ascending and not none, are found on disk."""
        there = rows if self._rows is None else self._rows[rows]
        near = range(int(there[0]), int(there[-1]) + 1)
        found = near if len(near) == len(there) else there.numpy()
        return Place(str(self._path.absolute()), found, self._count, self.num_features, self.info)

    def _all(self, name: str) -> Tensor:
        first = self._arrays[name]
        whole = np.empty((len(self), *first.shape[1:]), first.dtype)
        for start, chunk in self._chunks(name):
            whole[start : start + len(chunk)] = chunk
        return torch.from_numpy(whole)

    def _chunks(self, name: str) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """Yield ``(first row in this store, values)`` of one array."""
        if self._rows is None:
            for number in range(-(-self._count // self._step)):
                yield number * self._step, self._chunk(name, number)
            return
        start = 0
        numbers, counts = (self._rows // self._step).unique_consecutive(return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            inside = self._rows[start : start + count] - number * self._step
            yield start, self._chunk(name, number)[inside.numpy()]
            start += count

    def _chunk(self, name: str, number: int) -> np.ndarray[Any, Any]:
        """Read one chunk, or raise DataError that names it."""
        first = number * self._step
        part = slice(first, min(first + self._step, self._count))
        where = f"{self._path}: array {name!r}, chunk {number} (rows {first} to {part.stop - 1})"
        fix = "Restore it from a copy, or make the bank again"
        try:
            values = np.asarray(self._arrays[name][part])
        except Exception as error:  # codecs and file systems raise what they like
            raise DataError(f"{where} is damaged: {error}. {fix}") from error
        nothing = NOTHING[name]
        if np.all(np.isnan(values) if name == "features" else values == nothing):
            raise DataError(f"{where} is missing. {fix}")
        return values


VERSION = 1
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**20
"""Rows, and bytes, of a chunk: what a killed extraction has to compute again at most."""

NOTHING = {"features": float("nan"), "labels": int(np.iinfo(np.int64).min), "ids": -1}
"""What Zarr reads where a chunk is missing. No bank holds these numbers."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """What is fixed before the first row is written.

    Attributes
    ----------
    num_features : int
        d.
    dtype : str
        "float32" or "float64".
    chunk_rows : int
        Rows of a chunk, the same for all arrays.
    labelled : bool
        Whether there are labels.
    info : BankInfo
        Where the features came from.
    """

    num_features: int
    dtype: str
    chunk_rows: int
    labelled: bool
    info: BankInfo


def rows_of_chunk(num_features: int, dtype: str, batch: int = 1) -> int:
    """Return how many rows a chunk holds: whole batches, and about 1 MiB or 4,096 rows."""
    rows = min(_ROWS, _BYTES // (num_features * np.dtype(dtype).itemsize))
    return batch * max(1, rows // batch)


def create(path: Path, layout: Layout) -> None:
    """Write an incomplete group without rows."""
    about = {"version": VERSION, "complete": False, "labelled": layout.labelled}
    group = zarr.create_group(
        store=str(path),
        zarr_format=3,
        attributes={_ATTRIBUTES: about | {"dtype": layout.dtype} | asdict(layout.info)},
    )
    kinds = {"features": layout.dtype, "ids": "int64"}
    if layout.labelled:
        kinds["labels"] = "int64"
    for name, dtype in kinds.items():
        wide = (layout.num_features,) if name == "features" else ()
        group.create_array(
            name,
            shape=(0, *wide),
            chunks=(layout.chunk_rows, *wide),
            dtype=dtype,
            fill_value=NOTHING[name],
            compressors=[Crc32cCodec()],  # a checksum alone: features hardly compress
        )


def set_complete(path: Path) -> None:
    """Mark a group as holding all its rows, in one atomic step."""
    group = zarr.open_group(str(path), mode="r+")
    about: Any = group.attrs[_ATTRIBUTES]
    group.attrs.update({_ATTRIBUTES: about | {"complete": True}})


def open_arrays(path: Path, mode: Any = "r") -> tuple[dict[str, zarr.Array[Any]], Layout, bool]:
    """Return the arrays by name, the layout, and whether the bank is complete.

    Raises
    ------
    DataError
        The folder is missing, is no bank, or was written by a newer version.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bank. Make it with FeatureSpace.bank(loader, path)")
    try:
        group = zarr.open_group(str(path), mode=mode)
        about: Any = group.attrs[_ATTRIBUTES]
        version = about["version"]
    except Exception as error:  # not a group, broken JSON, other attributes: one cause for a user
        raise DataError(f"{path}: not a feature bank ({error})") from error
    if version != VERSION:
        raise DataError(
            f"{path}: format {version} of a feature bank; this version reads {VERSION}. "
            "Update fsboundary, or make the bank again"
        )
    try:
        info = BankInfo(**{field.name: about[field.name] for field in fields(BankInfo)})
        names = ["features", "ids"] + ["labels"] * about["labelled"]
        arrays = {name: _array(group, name) for name in names}
        width = arrays["features"].shape[1]
        rows = arrays["features"].chunks[0]
        layout = Layout(width, about["dtype"], rows, about["labelled"], info)
        return arrays, layout, about["complete"]
    except Exception as error:  # as above
        raise DataError(f"{path}: a damaged feature bank ({error!r}). Make it again") from error


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array
