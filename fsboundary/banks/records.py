"""Records of banks on disk: the layout, the journal while it is built, the seal when complete.

Journal and seal list the SHA-256 of every chunk by its path in the folder, so that a chunk is
recognised by its content and its place.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from dataclasses import dataclass, fields
from io import FileIO
from pathlib import Path
from typing import Any, final

import numpy as np

from fsboundary.banks.store import BankInfo
from fsboundary.core.errors import DataError

GROUP = "zarr.json"
SEAL = "features/seal.sha256"
JOURNAL = "features/batches.jsonl"
"""Paths in the folder of a bank. Seal and journal are inside an array, because Zarr warns of
unknown files in a group."""

_LARGEST = 2**28
"""Maximal bytes of a file that is read completely, whatever size it declares; a seal of this size
lists three million chunks."""

_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# a link is an error, and a pipe is not waited for; Windows has neither flag
_OPEN |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def sha256(*contents: Any) -> str:
    """Return the SHA-256 of bytes or arrays of bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def read_file(folder: Path, name: str) -> bytes:
    """Return the bytes of the file `name` of a bank.

    Raises
    ------
    OSError
        The file is too large, or for a reason of :func:`open_file`.
    """
    with open_file(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise OSError(f"it has {size} bytes instead of at most {_LARGEST}")
        return file.read(size)


def open_file(folder: Path, name: str) -> FileIO:
    """Open the file `name` of a bank for reading, without a buffer.

    Raises
    ------
    OSError
        The file is missing, a link, inside a linked folder, or not a plain file.
    """
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise OSError(f"{path.relative_to(folder).as_posix()} is a link")
    file = FileIO(os.open(path, _OPEN))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{name} is not a plain file")
    return file


_VERSION = 2
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**23
"""Maximal rows and bytes of a chunk, which a killed extraction has to recompute. A disk is slower
with smaller files."""

FILL_VALUES = {"features": float("nan"), "labels": int(np.iinfo(np.int64).min), "ids": -1}
"""Values after the last row of the last chunk. No bank contains these numbers."""


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

    def stored_dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the numbers in the chunk files of an array, which are little-endian.

        Arrays of it are those of :meth:`dtype_of` on nearly all machines.
        """
        return np.dtype(self.dtype_of(name)).newbyteorder("<")

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
    """Return the number of rows per chunk: whole batches, and about 8 MiB or 4,096 rows."""
    rows = min(_ROWS, _BYTES // (num_features * np.dtype(dtype).itemsize))
    return batch * max(1, rows // batch)


def chunk_file(name: str, number: int) -> str:
    """Return the path of a chunk in the folder of its bank, as Zarr names it."""
    return f"{name}/c/{number}" + "/0" * (name == "features")


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
        raw = read_file(path, GROUP)
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


@final
@dataclass(frozen=True, slots=True)
class Seal:
    """Record of a complete bank: its number of rows, and the SHA-256 of each of its files.

    It is written last, so a bank without a seal is unfinished. Its lines are those of the program
    sha256sum, which can check them: ``cd bank && sha256sum -c features/seal.sha256``.

    Attributes
    ----------
    rows : int
        Number of rows.
    checksums : dict
        SHA-256 by path: the metadata, the journal if there is one, and the chunks in order.
    """

    rows: int
    checksums: dict[str, str]

    def encode(self) -> bytes:
        """Return the content of the file; the last line is the digest of all before it."""
        lines = [f"# feature bank of {self.rows} rows"]
        lines += [f"{checksum}  {path}" for path, checksum in self.checksums.items()]
        text = "".join(f"{line}\n" for line in lines).encode()
        return text + f"# sha256 of all lines above: {sha256(text)}\n".encode()

    @property
    def digest(self) -> str:
        """SHA-256 of rows, metadata and all chunks in their order."""
        return self.encode()[-65:-1].decode()


_SEAL = re.compile(
    rb"(# feature bank of ([1-9][0-9]{0,17}) rows\n(?:[0-9a-f]{64}  [!-~]+\n)+)"
    rb"# sha256 of all lines above: ([0-9a-f]{64})\n"
)


def read_seal(folder: Path) -> Seal | None:
    """Return the seal of a bank, or None if there is none.

    Raises
    ------
    DataError
        The seal is damaged.
    """
    fix = "Restore it from a copy, or create the bank again"
    try:
        content = read_file(folder, SEAL)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{folder}: a damaged feature bank: {SEAL}: {error}. {fix}") from error
    match = _SEAL.fullmatch(content)
    if match is None or sha256(match[1]) != match[3].decode():
        raise DataError(f"{folder}: a damaged feature bank: {SEAL} was changed. {fix}")
    lines = match[1].decode().splitlines()[1:]
    return Seal(int(match[2]), {line[66:]: line[:64] for line in lines})


@final
@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Journal record of a batch: its number of rows and the digest of its inputs and labels."""

    rows: int
    digest: str


@final
class Journal:
    """Journal of a bank on disk: a bank contains what its journal records, and nothing else counts.

    Each line carries a checksum of itself and of all lines before it.

    Parameters
    ----------
    folder : Path
        Folder of the bank.

    Attributes
    ----------
    checksum : str
        SHA-256 of the file when it was read.
    group : str
        SHA-256 of the metadata of the group.
    rows : int
        Number of rows.
    batches : list of BatchRecord
        Batches whose rows the bank contains, the last one perhaps in part.
    checksums : dict
        SHA-256 of each chunk by its path.

    Raises
    ------
    DataError
        The bank has no journal, or a line other than the last is damaged. The last line may be
        incomplete, in which case its chunk does not count.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL
        try:
            content = read_file(folder, JOURNAL)
        except FileNotFoundError as error:
            raise DataError(
                f"{folder}: contains something else, or a bank that was not built from a loader. "
                "Choose another path; open a saved bank with FeatureBank.open(path)"
            ) from error
        except OSError as error:
            raise DataError(f"{self._file}: {error}. Create the bank again") from error
        self.checksum = sha256(content)
        self.rows = 0
        self.group = self._last = ""
        self.batches: list[BatchRecord] = []
        self.checksums: dict[str, str] = {}
        # incomplete lines are overwritten; more than that can only come from another writer
        self._size, self._end = 0, len(content)
        for line in content.splitlines(keepends=True):
            try:
                entry, checksum = _parse_line(line, self._last)
                if self._size == 0:
                    self.group = str(entry["group"])
                else:
                    rows, chunks = int(entry["rows"]), dict(entry["chunks"])
                    batches = [BatchRecord(int(n), str(text)) for n, text in entry["batches"]]
                    self.rows = rows
                    self.batches += batches
                    self.checksums.update(chunks)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                if self._size + len(line) < self._end or self._size == 0:
                    raise DataError(
                        f"{self._file}: a damaged line. Create the bank again"
                    ) from error
                break
            self._size += len(line)
            self._last = checksum

    def append(self, rows: int, batches: list[BatchRecord], chunks: dict[str, str]) -> None:
        """Record that the bank holds `rows` rows.

        Parameters
        ----------
        rows : int
            Number of rows.
        batches : list of BatchRecord
            Batches since the last line.
        chunks : dict
            SHA-256 by path of the chunks since the last line, which must be on the disk.

        Raises
        ------
        DataError
            Another process has written to the journal.
        """
        entry = {
            "rows": rows,
            "batches": [[batch.rows, batch.digest] for batch in batches],
            "chunks": chunks,
        }
        line, checksum = _format_line(entry, self._last)
        with self._file.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != self._end:
                raise DataError(
                    f"{self._file}: another process writes to this bank. Let one of them finish, "
                    "then call again"
                )
            file.truncate(self._size)  # an incomplete line of a killed process
            file.seek(self._size)
            self._end = self._size  # if the disk is full, nothing more is written by this process
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.rows, self._last = rows, checksum
        self.batches += batches
        self.checksums |= chunks
        self._size += len(line)
        self._end = self._size


def first_line(group: str) -> bytes:
    """Return the journal of a bank without rows, whose group's metadata has the SHA-256 `group`."""
    return _format_line({"group": group}, "")[0]


def _format_line(entry: dict[str, Any], last: str) -> tuple[bytes, str]:
    """Return a line of the journal and its checksum; `last` is that of the line before."""
    checksum = sha256((last + json.dumps(entry)).encode())
    return json.dumps(entry | {"sum": checksum}).encode() + b"\n", checksum


def _parse_line(line: bytes, last: str) -> tuple[dict[str, Any], str]:
    if not line.endswith(b"\n"):
        raise ValueError("the line is incomplete")
    entry = json.loads(line)
    checksum = entry.pop("sum")
    if _format_line(entry, last) != (line, checksum):
        raise ValueError("the line was changed")
    return entry, checksum
