"""Journals of banks on disk: the chunks and batches that an unfinished bank contains.

A journal lists the SHA-256 of every chunk by its path in the folder, so that a chunk is recognised
by its content and its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from fsboundary.banks.disk.files import read_file, sha256
from fsboundary.core.errors import DataError

JOURNAL = "features/batches.jsonl"
"""Path in the folder of a bank; inside an array, because Zarr warns of unknown files in a group."""


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

    def append(self, *entries: tuple[int, Sequence[BatchRecord], dict[str, str]]) -> None:
        """Append lines, one per chunk, and wait until they are on the disk.

        Parameters
        ----------
        *entries : tuple of int, sequence of BatchRecord, dict
            The number of rows of the bank with this chunk; the batches since the line before; the
            SHA-256 of the chunk's files by their paths, which must be on the disk.

        Raises
        ------
        DataError
            Another process has written to the journal.
        """
        lines, last = [], self._last
        for rows, batches, chunks in entries:
            records = [[batch.rows, batch.digest] for batch in batches]
            line, last = _format_line({"rows": rows, "batches": records, "chunks": chunks}, last)
            lines.append(line)
        content = b"".join(lines)
        with self._file.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != self._end:
                raise DataError(
                    f"{self._file}: another process writes to this bank. Let one of them finish, "
                    "then call again"
                )
            file.truncate(self._size)  # an incomplete line of a killed process
            file.seek(self._size)
            self._end = self._size  # if the disk is full, nothing more is written by this process
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for rows, batches, chunks in entries:
            self.rows = rows
            self.batches += batches
            self.checksums |= chunks
        self._last = last
        self._size += len(content)
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
