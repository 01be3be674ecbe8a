"""Folders of banks that are being written: locks, temporary names, publishing chunks, the seal."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import MemoryStore

from fsboundary.banks.disk.files import sha256
from fsboundary.banks.disk.journal import JOURNAL, BatchRecord, first_line
from fsboundary.banks.disk.layout import GROUP, Layout, chunk_file
from fsboundary.banks.disk.seal import SEAL, Seal
from fsboundary.core.errors import DataError
from fsboundary.core.files import hold_lock, lock_path

_PARTIAL = ".partial"
"""End of the name of a file that is not completely written."""


@final
@dataclass(frozen=True, slots=True)
class WrittenChunk:
    """A chunk whose files are on the disk, under the names that they have until it is published.

    Attributes
    ----------
    rows : int
        Number of rows of the bank up to the end of the chunk.
    records : tuple of BatchRecord
        Batches that begin in the chunk.
    checksums : dict
        SHA-256 of its files by their paths in the folder of the bank.
    """

    rows: int
    records: tuple[BatchRecord, ...]
    checksums: dict[str, str]


@final
class BankFolder:
    """The folder of a bank that this process writes.

    Parameters
    ----------
    path : Path
        Folder made by :func:`create`, or a new one.
    layout : Layout
        Layout that it was made with.
    checksums : dict, optional
        SHA-256 of the published chunks by their paths; all other chunks are removed.
    verify : callable, optional
        Function that raises DataError if another process may write too.
    on_publish : callable, optional
        Callback that receives chunks once they are on the disk under their names.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        checksums: dict[str, str] | None = None,
        verify: Callable[[], None] | None = None,
        on_publish: Callable[[Sequence[WrittenChunk]], None] | None = None,
    ) -> None:
        self.path, self.layout = path, layout
        self._checksums = dict(checksums or {})
        self._verify, self._on_publish = verify, on_publish
        self._unsynced, self._known = set[Path](), set[Path]()
        for file in path.rglob("*"):
            chunk = file.relative_to(path).as_posix()
            if file.is_symlink():
                raise DataError(f"{file}: a link, which could lead anywhere. Create the bank again")
            left = "/c/" in chunk and chunk not in self._checksums and not file.is_dir()
            if left or chunk.endswith(_PARTIAL):
                file.unlink()

    def publish(self, chunks: Sequence[WrittenChunk]) -> None:
        """Give the files of chunks their names, on the disk too if a callback relies on them."""
        if self._verify is not None:
            self._verify()
        for chunk in chunks:
            for file in chunk.checksums:
                os.replace(partial_path(self.path / file), self.path / file)
                self._note(self.path / file)
            self._checksums |= chunk.checksums
        if self._on_publish is not None:
            self._sync()
            self._on_publish(chunks)

    def _note(self, path: Path) -> None:
        """Remember which folders have new entries because of a new file."""
        for folder in path.parents:
            self._unsynced.add(folder)
            if folder in self._known or folder == self.path:
                break
            self._known.add(folder)  # from now on, only its own entries are new

    def _sync(self) -> None:
        """Wait until the names of all published files are on the disk."""
        _sync(self._unsynced)
        self._unsynced = set()

    def seal(self, rows: int) -> None:
        """Write the metadata of a bank with `rows` rows and, as the last file, the seal."""
        self._sync()
        checksums = {}
        for file, content in _metadata(self.layout, rows).items():
            _write_file(self.path, file, content)
            checksums[file] = sha256(content)
        if (journal := self.path / JOURNAL).exists():
            checksums[JOURNAL] = sha256(journal.read_bytes())
        for name in self.layout.names:
            for number in range(-(-rows // self.layout.chunk_rows)):
                file = chunk_file(name, number)
                checksums[file] = self._checksums[file]
        _write_file(self.path, SEAL, Seal(rows, checksums).encode())


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
            dtype=layout.array_dtype(name).name,
            fill_value=layout.fill_value(name),
            serializer=BytesCodec(endian="little"),
            compressors=[Crc32cCodec()],  # only a checksum: features hardly compress
        )
    return {file: content.to_bytes() for file, content in files.items()}


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
            remove_temporary(path)
            if not (path / SEAL).exists():  # as before another process may have finished it
                try:
                    yield verify
                finally:
                    remove_temporary(path)
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
    temporary = temporary_folder(path)
    for file, content in _metadata(layout, 0).items():
        _write_file(temporary, file, content)
        if file == GROUP:
            _write_file(temporary, JOURNAL, first_line(sha256(content)))
    publish_folder(path)


def temporary_folder(path: Path) -> Path:
    """Return the sibling of `path` that is renamed to it once it is a bank."""
    return path.with_name(f".{path.name}.unfinished")


def remove_temporary(path: Path) -> None:
    """Remove what a process left that failed or was killed; the lock of `path` must be held."""
    shutil.rmtree(temporary_folder(path), ignore_errors=True)


def publish_folder(path: Path) -> None:
    """Rename the temporary folder to `path`."""
    os.rename(temporary_folder(path), path)
    _sync({path.parent})


def partial_path(path: Path) -> Path:
    """Return the name of a file until it is complete."""
    return path.with_name(path.name + _PARTIAL)


def write_partial(files: Mapping[Path, Any]) -> None:
    """Write the files that become those paths, and wait until they are on the disk."""
    with ExitStack() as opened:
        written = []
        try:
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = opened.enter_context(partial_path(path).open("wb", buffering=0))
                written.append(file)
                view = memoryview(content).cast("B")
                while view:  # a disk that is full takes a part
                    view = view[file.write(view) :]
            for file in written:  # a file system writes its own journal once for all of them
                os.fsync(file.fileno())
        except BaseException:
            remove_partial(files)  # a full disk gets its space back
            raise


def remove_partial(paths: Iterable[Path]) -> None:
    """Remove the files that would have become `paths`."""
    for path in paths:
        with suppress(OSError):
            partial_path(path).unlink()


def _write_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a bank, completely or not at all, and wait until it is on the disk."""
    path = folder / name
    write_partial({path: content})
    try:
        os.replace(partial_path(path), path)
    except BaseException:
        remove_partial([path])
        raise
    _sync(_folders(path, folder))


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
