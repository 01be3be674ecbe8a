"""Writer of banks on disk, chunk by chunk."""

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
        Group created by `zarr_store.create`.
    rows : int
        Number of committed rows, whole chunks; everything after them is removed.
    on_commit : callable
        Callback that receives the number of rows after each chunk, once it is on the disk.
    """

    def __init__(
        self, path: Path, rows: int = 0, on_commit: Callable[[int], None] = lambda _: None
    ) -> None:
        self._path, self._on_commit = path, on_commit
        self._arrays, self._layout, _ = zarr_store.open_arrays(path, "r+")
        for leftover in path.rglob("*.partial"):  # files that Zarr had not renamed yet
            leftover.unlink()
        for array in self._arrays.values():
            array.resize((rows, *array.shape[1:]))
        self._rows = rows
        self._pending: dict[str, list[Tensor]] = {name: [] for name in self._arrays}
        self._count = 0

    def add(self, features: Tensor, labels: Tensor | None, ids: Tensor) -> None:
        """Append rows: float features (m,d) and int64 labels and ids (m,)."""
        values = {"features": features, "labels": labels, "ids": ids}
        for name, pending in self._pending.items():
            value = values[name]
            assert value is not None, "labels are given for every row or for none"
            pending.append(value.detach().cpu())
        self._count += len(features)
        while self._count >= self._layout.chunk_rows:
            self._write(self._layout.chunk_rows)

    def finish(self) -> None:
        """Write the pending rows and mark the bank as complete."""
        if self._count:
            self._write(self._count)
        zarr_store.set_complete(self._path)
        _sync(self._path / "zarr.json", self._path)

    def _write(self, count: int) -> None:
        number = self._rows // self._layout.chunk_rows
        for name, pending in self._pending.items():
            ready = torch.cat(pending) if len(pending) > 1 else pending[0]
            pending[:] = [ready[count:]]
            array = self._arrays[name]
            array.append(ready[:count].numpy())
            chunk = (number,) + (0,) * (array.ndim - 1)
            folder = self._path / name
            _sync(folder / array.metadata.encode_chunk_key(chunk), folder)
            _sync(folder / "zarr.json", folder)
        self._count -= count
        self._rows += count
        self._on_commit(self._rows)


def create_empty(path: Path, layout: Layout, *files: Path) -> None:
    """Create an empty bank at `path` atomically, with empty `files` (relative paths) in it."""
    temporary = _temporary_folder(path)
    zarr_store.create(temporary, layout)
    for file in files:
        (temporary / file).touch()
    os.rename(temporary, path)
    _sync(path.parent, path.parent)


def save(store: Store, path: Path) -> None:
    """Write `store` to `path`; an interrupted call leaves nothing at `path`."""
    if path.exists():
        fix = "choose another path, or delete it first"
        raise ArgumentError("path", f"{path}, which exists", "a path of a new folder", fix)
    labels, ids = store.labels(), store.ids()
    temporary = _temporary_folder(path)
    writer = None
    for start, chunk in store.chunks():
        if writer is None:
            dtype = str(chunk.dtype).removeprefix("torch.")
            rows = zarr_store.rows_per_chunk(store.num_features, dtype)
            layout = Layout(store.num_features, dtype, rows, labels is not None, store.info)
            zarr_store.create(temporary, layout)
            writer = ChunkWriter(temporary)
        part = slice(start, start + len(chunk))
        writer.add(chunk, None if labels is None else labels[part], ids[part])
    assert writer is not None, "a bank has at least one row"
    writer.finish()
    os.rename(temporary, path)
    _sync(path.parent, path.parent)


def _temporary_folder(path: Path) -> Path:
    """Return a sibling of `path` to be renamed to it; leftovers of killed processes are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def _sync(path: Path, top: Path) -> None:
    """Wait until a file and the folders between it and `top` are on the disk."""
    for one in (path, *path.parents):
        if os.name != "nt" or one.is_file():  # Windows cannot open folders
            handle = os.open(one, os.O_RDWR if one.is_file() else os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        if one == top:
            return
