"""Chunks of banks on disk, verified when they are read.

The files are read without Zarr, because the seal of the bank fixes their format byte by byte.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, final

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from fsboundary.banks.disk.files import open_file, read_file, sha256
from fsboundary.banks.disk.journal import JOURNAL, Journal
from fsboundary.banks.disk.layout import GROUP, Layout, chunk_file, read_layout
from fsboundary.banks.disk.seal import read_seal
from fsboundary.core.errors import DataError

_FIX = "Restore it from a copy, or create the bank again"

_PIECE = 2**12
"""Bytes, at least one row, with a checksum in memory, by which single rows are verified."""


def crc32c(content: Any) -> bytes:
    """Return the CRC-32C of bytes or a contiguous array, as it ends the file of a chunk."""
    return struct.pack("<I", google_crc32c.value(content))


@final
@dataclass(frozen=True, slots=True)
class _Verified:
    """A chunk that was verified: its CRC-32C, the state of its file, and CRC-32C of its pieces.

    The state changes if anybody writes to the file or replaces it, except within the resolution of
    the file system's clock.
    """

    checksum: bytes
    state: tuple[int, ...]
    pieces: NDArray[np.uint32] | None = None


@final
class Contents:
    """Chunks of a bank on disk, verified when they are read.

    When this process reads a chunk for the first time, or its file was written to since, its
    SHA-256 is compared with the record of the bank. Other reads, of the chunk or of a piece of it,
    compare a CRC-32C, which is much faster, with that of the verified bytes. Compared are the bytes
    in memory from which results are computed, so that no file can change in between.

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
        self._verified: dict[str, _Verified] = {}
        self._memory: list[NDArray[np.uint8]] = []

    def read(self, name: str, number: int, out: NDArray[Any]) -> None:
        """Read one chunk of an array to `out`, or raise a DataError that names it."""
        with self.open_chunk(name, number) as file:
            self._read(file, name, number, out)

    def take(self, name: str, number: int, rows: NDArray[Any]) -> NDArray[Any]:
        """Return `rows` of one chunk, ascending and counted from its first row.

        Only the pieces with these rows are read, unless they are many.
        """
        shape, dtype = self.layout.chunk_shape(name), self.layout.stored_dtype(name)
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        per_piece = max(1, _PIECE // row_bytes)
        stop, size = shape[0] * row_bytes, per_piece * row_bytes
        starts = range(0, stop, size)
        pieces, place = np.unique(rows // per_piece, return_inverse=True)
        few, path = len(pieces) * _MANY < len(starts), chunk_file(name, number)
        selected: NDArray[Any]
        with self.open_chunk(name, number) as file:
            known = self._verified.get(path)
            if not few or known is None or known.pieces is None or known.state != _state(file):
                with self.memory(shape, dtype) as chunk:
                    known = self._read(file, name, number, chunk)
                    if few and known.pieces is None:
                        content = chunk.reshape(-1).view(np.uint8)
                        sums = [google_crc32c.value(content[at : at + size]) for at in starts]
                        self._verified[path] = replace(known, pieces=np.array(sums, np.uint32))
                    selected = chunk[rows]
                    return selected
            parts = []
            for piece in pieces.tolist():
                file.seek(starts[piece])
                parts.append(file.read(min(size, stop - starts[piece])))
            if [google_crc32c.value(part) for part in parts] != known.pieces[pieces].tolist():
                raise OSError(_CHANGED)
        values = np.frombuffer(b"".join(parts), dtype).reshape(-1, *shape[1:])
        selected = values[place * per_piece + rows % per_piece]
        return selected

    @contextmanager
    def memory(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Provide an array for the block, in memory that is kept for later calls.

        New memory would cost more than the bytes that are read to it.
        """
        size = math.prod(shape) * dtype.itemsize
        try:
            raw = self._memory.pop()  # at most one thread gets it
        except IndexError:
            raw = np.empty(0, np.uint8)
        if len(raw) < size:
            # torch aligns memory to 64 bytes, NumPy to 16, and files are read to that half as fast
            raw = torch.empty(size, dtype=torch.uint8).numpy()
        try:
            yield raw[:size].view(dtype).reshape(shape)
        finally:
            self._memory[:] = [raw]

    def prefetch(self, name: str, number: int) -> None:
        """Let the system read a chunk from the disk while this process computes, if it can."""
        if number * self.layout.chunk_rows < self.rows and hasattr(os, "posix_fadvise"):
            # a chunk that cannot be read is reported by whoever reads it
            with suppress(OSError), open_file(self._path, chunk_file(name, number)) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    @contextmanager
    def open_chunk(self, name: str, number: int) -> Iterator[FileIO]:
        """Open the file of a chunk for the block, and name the chunk in errors."""
        first = number * self.layout.chunk_rows
        last = min(first + self.layout.chunk_rows, self.rows) - 1
        where = f"{self._path}: array {name!r}, chunk {number} (rows {first} to {last})"
        try:
            with open_file(self._path, chunk_file(name, number)) as file:
                size, wanted = os.fstat(file.fileno()).st_size, self.layout.chunk_bytes(name)
                if size != wanted:
                    raise OSError(f"it has {size} bytes instead of {wanted}")
                yield file
        except FileNotFoundError as error:
            raise DataError(f"{where} is missing. {_FIX}") from error
        except OSError as error:
            raise DataError(f"{where} is damaged: {error}. {_FIX}") from error

    def _read(self, file: FileIO, name: str, number: int, out: NDArray[Any]) -> _Verified:
        path, state = chunk_file(name, number), _state(file)
        known = self._verified.get(path)
        if known is not None and known.state != state:
            known = None
        new: Any = hashlib.sha256 if known is None else google_crc32c.Checksum
        checksum = new()
        content, last = out.reshape(-1).view(np.uint8), np.empty(4, np.uint8)
        for first in range(0, len(content), _STRIDE):
            part = content[first : first + _STRIDE]
            _fill(part, file)
            checksum.update(part)
        _fill(last, file)
        if known is None:
            checksum.update(last)
            intact = checksum.hexdigest() == self._checksums.get(path)
            known = _Verified(last.tobytes(), state)
        else:
            intact = last.tobytes() == known.checksum == checksum.digest()[::-1]
        if not intact:
            raise OSError(_CHANGED)
        self._verified[path] = known
        return known


_STRIDE = 2**18
"""Bytes that are read and compared at once: they are still in a cache of the processor then."""

_MANY = 5
"""Reading a piece costs about as much as this many pieces cost if the whole chunk is read."""

_CHANGED = "it is not the chunk that was written there"


def _fill(part: NDArray[np.uint8], file: FileIO) -> None:
    """Read as many bytes of `file` as `part` has, or raise OSError."""
    while len(part):
        count = file.readinto(part)  # type: ignore[arg-type] # an array is a buffer
        if not count:
            raise OSError("it ended while it was read")
        part = part[count:]


def _state(file: FileIO) -> tuple[int, ...]:
    """Return what changes if anybody writes to the open `file` or puts another in its place."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


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
        with contents.open_chunk(name, 0):
            pass
    return contents
