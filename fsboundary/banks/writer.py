"""Writing a bank to disk, chunk by chunk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import zarr_store
from fsboundary.banks.store import Store
from fsboundary.banks.zarr_store import Layout
from fsboundary.core.errors import ArgumentError


@final
class ChunkWriter:
    """Appends rows to a group and writes them as whole chunks.

    Parameters
    ----------
    path : Path
        A group made by `layout.create`.
    rows : int
        Rows that it holds for certain, whole chunks; all that lies behind is removed.
    written : callable
        Called with the number of rows after each chunk, which is on the disk by then.
    """

    def __init__(
        self, path: Path, rows: int = 0, written: Callable[[int], None] = lambda _: None
    ) -> None:
        self._path, self._written = path, written
        self._arrays, self._layout, _ = zarr_store.open_arrays(path, "r+")
        for left in path.rglob("*.partial"):  # what Zarr had not renamed yet
            left.unlink()
        for array in self._arrays.values():
            array.resize((rows, *array.shape[1:]))
        self._rows = rows
        self._waiting: dict[str, list[Tensor]] = {name: [] for name in self._arrays}
        self._count = 0

    def add(self, features: Tensor, labels: Tensor | None, ids: Tensor) -> None:
        """Append rows: float features (m,d) and int64 labels and ids (m,)."""
        given = {"features": features, "labels": labels, "ids": ids}
        for name, waiting in self._waiting.items():
            value = given[name]
            assert value is not None, "labels are given throughout or not at all"
            waiting.append(value.detach().cpu())
        self._count += len(features)
        while self._count >= self._layout.chunk_rows:
            self._write(self._layout.chunk_rows)

    def finish(self) -> None:
        """Write what is left and mark the bank as complete."""
        if self._count:
            self._write(self._count)
        zarr_store.set_complete(self._path)
        _sync(self._path / "zarr.json", self._path)

    def _write(self, count: int) -> None:
        number = self._rows // self._layout.chunk_rows
        for name, waiting in self._waiting.items():
            ready = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
            waiting[:] = [ready[count:]]
            array = self._arrays[name]
            array.append(ready[:count].numpy())
            place = (number,) + (0,) * (array.ndim - 1)
            folder = self._path / name
            _sync(folder / array.metadata.encode_chunk_key(place), folder)
            _sync(folder / "zarr.json", folder)
        self._count -= count
        self._rows += count
        self._written(self._rows)


def begin(path: Path, about: Layout, *files: Path) -> None:
    """Make an empty bank at `path` in one step; empty `files` (relative) are made in it."""
    fresh = _fresh(path)
    zarr_store.create(fresh, about)
    for file in files:
        (fresh / file).touch()
    os.rename(fresh, path)
    _sync(path.parent, path.parent)


def save(store: Store, path: Path) -> None:
    """Write `store` to `path`; whoever is killed leaves nothing at `path`."""
    check_free(path)
    labels, ids = store.labels(), store.ids()
    fresh = _fresh(path)
    writer = None
    for start, chunk in store.chunks():
        if writer is None:
            dtype = str(chunk.dtype).removeprefix("torch.")
            rows = zarr_store.rows_of_chunk(store.num_features, dtype)
            about = Layout(store.num_features, dtype, rows, labels is not None, store.info)
            zarr_store.create(fresh, about)
            writer = ChunkWriter(fresh)
        part = slice(start, start + len(chunk))
        writer.add(chunk, None if labels is None else labels[part], ids[part])
    assert writer is not None, "a bank has one row at least"
    writer.finish()
    os.rename(fresh, path)
    _sync(path.parent, path.parent)


def check_free(path: Path) -> None:
    """Raise ArgumentError if something lies at `path`."""
    if path.exists():
        fix = "choose another path, or delete it first"
        raise ArgumentError("path", f"{path}, which exists", "a path of a new folder", fix)


def _fresh(path: Path) -> Path:
    """Return a folder beside `path` to be renamed to it; what a killed process left is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    return fresh


def _sync(path: Path, top: Path) -> None:
    """Wait until a file, and the names on its way from the folder `top`, are on the disk."""
    for one in (path, *path.parents):
        if os.name != "nt" or one.is_file():  # Windows opens no folders
            handle = os.open(one, os.O_RDWR if one.is_file() else os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        if one == top:
            return
