"""Bank store on disk: a Zarr v3 group of `features`, `labels` and `ids`, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.banks.disk.contents import Contents, open_contents
from fsboundary.banks.store import Store, to_tensor
from fsboundary.core.errors import DataError

_BLOCK = 2**23
"""Bytes that are read and reduced at once, if a chunk is not larger."""


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
        self.dtype = self._layout.torch_dtype("features")

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the bank again in another process, where nothing has been verified yet."""
        return _reopen, (str(self._path), self.seal, self._rows)

    def __len__(self) -> int:
        return self._contents.rows if self._rows is None else len(self._rows)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield blocks of rows of this store, each in the same memory."""
        for start, block in self._blocks("features"):
            yield start, to_tensor(block)

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows` as float64."""
        wanted = rows.cpu() if self._rows is None else self._rows[rows.cpu()]
        points = torch.empty(len(wanted), self.num_features, dtype=torch.float64)
        order = wanted.argsort()
        for start, number, inside in self._split_by_chunk(wanted[order]):
            values = to_tensor(self._contents.take("features", number, inside))
            points[order[start : start + len(inside)]] = values.to(torch.float64)
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
        width = self._layout.chunk_shape(name)[1:]
        values: NDArray[Any] = np.empty((len(self), *width), self._layout.array_dtype(name))
        for start, block in self._blocks(name):
            values[start : start + len(block)] = block
        return to_tensor(values)

    def _blocks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield ``(first row in this store, values)`` of one array, in one buffer."""
        step, width = self._layout.chunk_rows, self._layout.chunk_shape(name)[1:]
        num_chunks = max(1, _BLOCK // self._layout.chunk_bytes(name))
        size = step * min(num_chunks, -(-len(self) // step))
        dtype = self._layout.array_dtype(name)
        with self._contents.memory((size, *width), self._layout.stored_dtype(name)) as block:
            for start in range(0, len(self), size):
                count = min(size, len(self) - start)
                if self._rows is None:
                    for first in range(0, count, step):
                        number = (start + first) // step
                        self._contents.read(name, number, block[first : first + step])
                        self._contents.prefetch(name, number + num_chunks)
                else:
                    rows = self._rows[start : start + count]
                    for first, number, inside in self._split_by_chunk(rows):
                        values = self._contents.take(name, number, inside)
                        block[first : first + len(inside)] = values
                yield start, block[:count].astype(dtype, copy=False)

    def _split_by_chunk(self, rows: Tensor) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Yield, for each chunk with some of `rows`, ascending rows of the group, three things.

        The index of the first of these rows in `rows`, the number of the chunk, and the rows,
        counted from the first row of the chunk.
        """
        step, start = self._layout.chunk_rows, 0
        numbers, counts = (rows // step).unique_consecutive(return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            yield start, number, (rows[start : start + count] - number * step).numpy()
            start += count


def _reopen(path: str, seal: str, rows: Tensor | None) -> ZarrStore:
    """Return the store of the bank at `path`, which must have the seal `seal`."""
    contents = open_contents(Path(path))
    if contents.seal != seal:
        raise DataError(f"{path}: another bank than the one that was pickled. Open it again")
    return ZarrStore(Path(path), contents, rows)
