"""Writer of banks on disk, chunk by chunk, one process at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.banks.disk.contents import crc32c
from fsboundary.banks.disk.files import sha256
from fsboundary.banks.disk.folder import (
    BankFolder,
    WrittenChunk,
    publish_folder,
    remove_partial,
    remove_temporary,
    temporary_folder,
    write_partial,
    writing,
)
from fsboundary.banks.disk.journal import BatchRecord
from fsboundary.banks.disk.layout import Layout, chunk_file, rows_per_chunk
from fsboundary.banks.store import to_array
from fsboundary.banks.streams import RowStream
from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import hold_lock

_WAITING = 4
"""Maximal number of chunks that are filled and not yet published; each waits in memory."""


@final
@dataclass(frozen=True, slots=True)
class DiskThreads:
    """Threads that write while the calling thread computes.

    Attributes
    ----------
    files : Executor
        Two threads, each with one chunk: while the disk writes one, the checksums of the other are
        computed.
    publishing : Executor
        One thread that publishes chunks in order.
    """

    files: Executor
    publishing: Executor


@contextmanager
def disk_threads() -> Iterator[DiskThreads]:
    """Provide threads for the block; at its end they finish what was handed to them."""
    with ThreadPoolExecutor(2) as files, ThreadPoolExecutor(1) as publishing:
        yield DiskThreads(files, publishing)


@final
class ChunkWriter:
    """Appends rows to a bank and writes them as whole chunks, in the order of the rows.

    Other threads compute checksums and wait for the disk; all chunks that are on the disk when they
    are ready for the next step take it together. What they raise, the next call raises.

    Parameters
    ----------
    folder : BankFolder
        Folder of the bank.
    threads : DiskThreads
        Threads that write.
    rows : int
        Number of published rows; the last chunk may be incomplete only if no row is added.
    """

    def __init__(self, folder: BankFolder, threads: DiskThreads, rows: int = 0) -> None:
        self._folder, self._layout, self._threads = folder, folder.layout, threads
        self._rows, self._count = rows, 0
        self._records: list[BatchRecord] = []
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._unused: list[dict[str, NDArray[np.uint8]]] = []
        self._written: deque[_Chunk] = deque()
        self._published: deque[Future[None]] = deque()
        self._stopped = False

    def add(
        self, features: Tensor, labels: Tensor | None, ids: Tensor, *records: BatchRecord
    ) -> None:
        """Append copies of rows: features (m,d) and int64 labels and ids (m,).

        The features are finite in the dtype of the bank; `records` are those of the batches that
        begin in the next chunk.
        """
        self._records += records
        start, given = 0, {"features": features, "labels": labels, "ids": ids}
        while start < len(features):
            stop = min(start + self._layout.chunk_rows - self._count, len(features))
            for name in self._layout.names:
                values = given[name]
                assert values is not None, "labels are given for every row or for none"
                target = self._values(name)[self._count : self._count + stop - start]
                rows = values[start:stop].detach().cpu()
                target[:] = to_array(rows.to(self._layout.torch_dtype(name)))
            self._count += stop - start
            start = stop
            if self._count == self._layout.chunk_rows:
                self._write()

    def finish(self) -> None:
        """Write the pending rows, the metadata and, as the last file, the seal."""
        if self._count:
            for name in self._layout.names:
                self._values(name)[self._count :] = self._layout.fill_value(name)
            self._write()
        self._wait(0)
        self._folder.seal(self._rows)

    def _values(self, name: str) -> NDArray[Any]:
        """Return the numbers of the chunk of an array that is being filled."""
        if not self._buffers:
            layout = self._layout
            new = {one: np.empty(layout.chunk_bytes(one), np.uint8) for one in layout.names}
            # new memory would cost more than the bytes that are copied to it
            self._buffers = self._unused.pop() if self._unused else new
        numbers = self._buffers[name][:-4].view(self._layout.stored_dtype(name))
        return numbers.reshape(self._layout.chunk_shape(name))

    def _write(self) -> None:
        """Hand the chunk that was filled to the threads."""
        number = self._rows // self._layout.chunk_rows
        self._rows += self._count
        buffers, self._buffers, self._count = self._buffers, {}, 0
        files = {chunk_file(name, number): buffer for name, buffer in buffers.items()}
        written = self._threads.files.submit(_write_chunk, self._folder.path, files)
        self._written.append(
            _Chunk(self._rows, tuple(self._records), buffers, tuple(files), written)
        )
        self._records = []
        self._published.append(self._threads.publishing.submit(self._publish))
        self._wait(_WAITING)

    def _publish(self) -> None:
        """Publish the next chunk if no call did before, and all others that are written by now."""
        try:
            if self._written and not self._stopped:
                wait([self._written[0].checksums])
                ready = list(takewhile(lambda one: one.checksums.done(), list(self._written)))
                self._folder.publish([chunk.result() for chunk in ready])
                for chunk in ready:
                    self._written.popleft()
                    self._unused.append(chunk.buffers)
        except BaseException:
            self._stopped = True  # chunks are published in order or not at all
            raise
        finally:
            if self._stopped:
                self._discard()

    def _discard(self) -> None:
        """Remove the files of all chunks that are not published: a full disk gets space back."""
        while self._written:
            chunk = self._written.popleft()
            wait([chunk.checksums])
            remove_partial(self._folder.path / file for file in chunk.files)

    def _wait(self, count: int) -> None:
        """Wait until at most `count` chunks are not published, and raise what a thread raised."""
        try:
            while self._published and (len(self._published) > count or self._published[0].done()):
                self._published.popleft().result()
        except BaseException:
            self._stopped = True
            wait(self._published)
            raise


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """A chunk that is handed to the threads: what :class:`WrittenChunk` has, in the future."""

    rows: int
    records: tuple[BatchRecord, ...]
    buffers: dict[str, NDArray[np.uint8]]
    files: tuple[str, ...]
    checksums: Future[dict[str, str]]

    def result(self) -> WrittenChunk:
        """Return the written chunk, or raise what a thread raised."""
        return WrittenChunk(self.rows, self.records, self.checksums.result())


def _write_chunk(folder: Path, files: dict[str, NDArray[np.uint8]]) -> dict[str, str]:
    """Write what becomes the files of a chunk, wait for the disk, and return their SHA-256.

    The last four bytes of each are set to the CRC-32C of those before.
    """
    for content in files.values():
        content[-4:] = np.frombuffer(crc32c(content[:-4]), np.uint8)
    write_partial({folder / file: content for file, content in files.items()})
    return {file: sha256(content) for file, content in files.items()}


def save(rows: RowStream, path: Path) -> None:
    """Write `rows` to `path`; an interrupted or failed call leaves nothing at `path`."""
    _reject_existing(path)
    dtype = str(rows.dtype).removeprefix("torch.")
    step = rows_per_chunk(rows.num_features, dtype)
    layout = Layout(rows.num_features, dtype, step, rows.labelled, rows.info)
    advice = "Nothing was left there. Free some space, or choose another path, and save again"
    with writing(path, lambda: advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.resolve()) as verify:
            _reject_existing(path)  # another process may have been faster
            remove_temporary(path)
            try:
                with disk_threads() as threads:
                    writer = ChunkWriter(BankFolder(temporary_folder(path), layout), threads)
                    for features, labels, ids in rows.rounded_blocks():
                        writer.add(features, labels, ids)
                    writer.finish()
                verify()
                publish_folder(path)
            finally:
                remove_temporary(path)


def _reject_existing(path: Path) -> None:
    """Raise ArgumentError if `path` exists."""
    if path.exists():
        fix = "choose another path, or delete it first"
        raise ArgumentError("path", f"{path}, which exists", "a path of a new folder", fix)
