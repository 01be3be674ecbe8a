"""Writer of banks on disk, chunk by chunk, one process at a time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import MemoryStore

from fsboundary.banks.disk.contents import crc32c
from fsboundary.banks.disk.files import sha256
from fsboundary.banks.disk.journal import JOURNAL, first_line
from fsboundary.banks.disk.layout import (
    FILL_VALUES,
    GROUP,
    Layout,
    chunk_file,
    rows_per_chunk,
)
from fsboundary.banks.disk.seal import SEAL, Seal
from fsboundary.banks.store import Store
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock, lock_path

_PARTIAL = ".partial"
"""End of the name of a file that is not completely written."""


@final
class ChunkWriter:
    """Appends rows to a bank and writes them as whole chunks.

    Parameters
    ----------
    path : Path
        Folder made by :func:`create`, or a new one.
    layout : Layout
        Layout that it was made with.
    disk : Executor
        Thread that waits for the disk.
    rows : int
        Number of committed rows; the last chunk may be incomplete only if no row is added.
    checksums : dict, optional
        SHA-256 of the committed chunks by their paths; all other chunks are removed.
    on_commit : callable, optional
        Callback that receives the number of rows after each chunk, once it is on the disk, and the
        SHA-256 of its files by their paths. Without it, chunks are on the disk only after
        :meth:`finish`, and nothing waits for them before.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        disk: Executor,
        rows: int = 0,
        checksums: dict[str, str] | None = None,
        on_commit: Callable[[int, dict[str, str]], None] | None = None,
    ) -> None:
        self._path, self._layout, self._disk, self._on_commit = path, layout, disk, on_commit
        self._rows, self._checksums = rows, dict(checksums or {})
        for file in path.rglob("*"):
            chunk = file.relative_to(path).as_posix()
            if file.is_symlink():
                raise DataError(f"{file}: a link, which could lead anywhere. Create the bank again")
            left = "/c/" in chunk and chunk not in self._checksums and not file.is_dir()
            if left or chunk.endswith(_PARTIAL):
                file.unlink()
        self._count = 0
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._flushes: dict[str, Future[None]] = {}

    def add(self, features: Tensor, labels: Tensor | None, ids: Tensor) -> None:
        """Append copies of rows: float features (m,d) and int64 labels and ids (m,)."""
        start, given = 0, {"features": features, "labels": labels, "ids": ids}
        while start < len(features):
            stop = min(start + self._layout.chunk_rows - self._count, len(features))
            for name in self._layout.names:
                values = given[name]
                assert values is not None, "labels are given for every row or for none"
                target = self._values(name)[self._count : self._count + stop - start]
                target[:] = values[start:stop].detach().cpu().numpy()
            self._count += stop - start
            start = stop
            if self._count == self._layout.chunk_rows:
                self._write()

    def finish(self) -> None:
        """Write the pending rows, the metadata and, as the last file, the seal."""
        if self._count:
            for name in self._layout.names:
                self._values(name)[self._count :] = FILL_VALUES[name]
            self._write()
        self._publish_chunks()
        checksums = {}
        for file, content in _metadata(self._layout, self._rows).items():
            _write_file(self._path, file, content)
            checksums[file] = sha256(content)
        if (journal := self._path / JOURNAL).exists():
            checksums[JOURNAL] = sha256(journal.read_bytes())
        for name in self._layout.names:
            for number in range(-(-self._rows // self._layout.chunk_rows)):
                file = chunk_file(name, number)
                checksums[file] = self._checksums[file]
        _write_file(self._path, SEAL, Seal(self._rows, checksums).encode())

    def _values(self, name: str) -> NDArray[Any]:
        """Return the numbers of the chunk of an array that is being filled."""
        if name not in self._buffers:
            self._buffers[name] = np.empty(self._layout.chunk_bytes(name), np.uint8)
        numbers = self._buffers[name][:-4].view(self._layout.stored_dtype(name))
        return numbers.reshape(self._layout.chunk_shape(name))

    def _write(self) -> None:
        """Write the chunk that was filled, and commit it if that is wanted."""
        number = self._rows // self._layout.chunk_rows
        chunks = {}
        try:
            for name, buffer in self._buffers.items():
                file = chunk_file(name, number)
                buffer[-4:] = np.frombuffer(crc32c(buffer[:-4]), np.uint8)
                partial = _write_partial(self._path / file, buffer)
                # the disk is busy while the processor computes checksums
                self._flushes[file] = self._disk.submit(_flush, partial)
                chunks[file] = sha256(buffer)
            self._rows += self._count
            self._count = 0
            self._checksums |= chunks
            if self._on_commit is not None:
                self._publish_chunks()
        except BaseException:
            for file in self._flushes:
                with suppress(OSError):
                    _partial(self._path / file).unlink()  # a full disk gets its space back
            raise
        if self._on_commit is not None:
            self._on_commit(self._rows, chunks)

    def _publish_chunks(self) -> None:
        """Wait until the files of chunks are on the disk, and give them their names."""
        folders = set()
        for file, flush in self._flushes.items():
            flush.result()
            os.replace(_partial(self._path / file), self._path / file)
            folders.update(_folders(self._path / file, self._path))
        self._flushes = {}
        _sync(folders)


def _metadata(layout: Layout, rows: int) -> dict[str, bytes]:
    """Return the metadata of a group of arrays with `rows` rows, by their paths."""
    files: dict[str, Any] = {}
    group = zarr.create_group(
        store=MemoryStore(files), zarr_format=3, attributes=layout.attributes()
    )
    for name in layout.names:
        chunk = layout.chunk_shape(name)
        group.create_array(
            name,
            shape=(rows, *chunk[1:]),
            chunks=chunk,
            dtype=layout.dtype_of(name),
            fill_value=FILL_VALUES[name],
            serializer=BytesCodec(endian="little"),
            compressors=[Crc32cCodec()],  # only a checksum: features hardly compress
        )
    return {file: content.to_bytes() for file, content in files.items()}


def save(store: Store, path: Path) -> None:
    """Write `store` to `path`; an interrupted or failed call leaves nothing at `path`."""
    _reject_existing(path)
    labels, ids = store.labels(), store.ids()
    advice = "Nothing was left there. Free some space, or choose another path, and save again"
    with writing(path, lambda: advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.resolve()) as verify:
            _reject_existing(path)  # another process may have been faster
            _remove_temporary(path)
            try:
                with ThreadPoolExecutor(1) as disk:
                    writer = None
                    for start, chunk in store.chunks():
                        if writer is None:
                            dtype = str(chunk.dtype).removeprefix("torch.")
                            rows = rows_per_chunk(store.num_features, dtype)
                            labelled = labels is not None
                            layout = Layout(store.num_features, dtype, rows, labelled, store.info)
                            writer = ChunkWriter(_temporary_folder(path), layout, disk)
                        part = slice(start, start + len(chunk))
                        writer.add(chunk, None if labels is None else labels[part], ids[part])
                    assert writer is not None, "a bank has at least one row"
                    writer.finish()
                verify()
                _publish(path)
            finally:
                _remove_temporary(path)


def _reject_existing(path: Path) -> None:
    """Raise ArgumentError if `path` exists."""
    if path.exists():
        fix = "choose another path, or delete it first"
        raise ArgumentError("path", f"{path}, which exists", "a path of a new folder", fix)


@contextmanager
def writing(path: Path, advice: Callable[[], str]) -> Iterator[None]:
    """Raise a DataError that ends with `advice()` if something cannot be written."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        problem = "the disk is full" if full else "it cannot be written"
        raise DataError(f"{path}: {problem} ({error}). {advice()}") from error


@contextmanager
def building(path: Path) -> Iterator[Callable[[], None] | None]:
    """Hold the lock of the bank at `path` in the block, unless the bank is complete.

    The block receives a function that verifies that the lock is still held; None if the bank is
    complete, because nothing is written to it any more.

    Raises
    ------
    DataError
        Another process builds this bank, or it cannot be written.
    """
    if not (path / SEAL).exists():
        with writing(path, lambda: "Choose another path, or make this one writable"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.resolve()) as verify:
            _remove_temporary(path)
            if not (path / SEAL).exists():  # as before another process may have finished it
                try:
                    yield verify
                finally:
                    _remove_temporary(path)
                return
    elif lock_path(path.resolve()).exists():
        with suppress(DataError), hold_lock(path.resolve()):
            pass  # removes the lock that a process left that was killed after its last write
    yield None


def is_empty(path: Path) -> bool:
    """Return whether there is nothing at `path`, or a folder without files."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def create(path: Path, layout: Layout) -> None:
    """Create an unfinished bank without rows, atomically; the lock of `path` must be held."""
    temporary = _temporary_folder(path)
    for file, content in _metadata(layout, 0).items():
        _write_file(temporary, file, content)
        if file == GROUP:
            _write_file(temporary, JOURNAL, first_line(sha256(content)))
    _publish(path)


def _temporary_folder(path: Path) -> Path:
    """Return the sibling of `path` that is renamed to it once it is a bank."""
    return path.with_name(f".{path.name}.unfinished")


def _remove_temporary(path: Path) -> None:
    """Remove what a process left that failed or was killed; the lock of `path` must be held."""
    shutil.rmtree(_temporary_folder(path), ignore_errors=True)


def _publish(path: Path) -> None:
    """Rename the temporary folder to `path`."""
    os.rename(_temporary_folder(path), path)
    _sync({path.parent})


def _write_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a bank, completely or not at all, and wait until it is on the disk."""
    path = folder / name
    partial = _write_partial(path, content)
    try:
        _flush(partial)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    _sync(_folders(path, folder))


def _partial(path: Path) -> Path:
    """Return the name of a file until it is complete."""
    return path.with_name(path.name + _PARTIAL)


def _write_partial(path: Path, content: Any) -> Path:
    """Write the file that becomes `path`, without waiting for the disk, and return its name."""
    partial = _partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            file.write(content)
    except BaseException:
        with suppress(OSError):
            partial.unlink()  # a full disk gets its space back
        raise
    return partial


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _folders(path: Path, top: Path) -> set[Path]:
    """Return the folders above `path`, up to `top`."""
    return {folder for folder in path.parents if folder.is_relative_to(top)}


def _sync(folders: set[Path]) -> None:
    """Wait until folders are on the disk, the deepest first."""
    for folder in sorted(folders, key=lambda one: -len(one.parts)):
        if os.name != "nt":  # Windows cannot open folders
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
