"""Which batches of a loader a bank on disk holds: one line a chunk, appended after the chunk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fsboundary.core.errors import DataError


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of a batch: its number of rows and the digest of its images and labels."""

    rows: int
    digest: str


@final
class Journal:
    """The lines so far; a bank holds what its journal says, whatever else lies in its folder.

    Parameters
    ----------
    path : Path
        The bank's folder.

    Raises
    ------
    DataError
        The bank has no journal, or a line other than the last is damaged. The last may be torn:
        then its chunk does not count.
    """

    def __init__(self, path: Path) -> None:
        self._file = self.file(path)
        if not self._file.is_file():
            raise DataError(
                f"{path}: holds something else, or a bank that no loader was streamed to. Choose "
                "another path; open a saved bank with FeatureBank.open(path)"
            )
        self.rows = 0
        self.batches: list[Batch] = []
        self._size = 0
        for line in self._file.read_bytes().splitlines(keepends=True):
            try:
                rows, batches = _parsed(line)
            except (ValueError, TypeError, KeyError) as error:
                if self._size + len(line) < self._file.stat().st_size:
                    raise DataError(f"{self._file}: a damaged line. Make the bank again") from error
                break
            self.rows = rows
            self.batches += batches
            self._size += len(line)

    @staticmethod
    def file(path: Path) -> Path:
        """Return where the journal of the bank at `path` is.

        It is inside an array, as Zarr warns of strange files in a group.
        """
        return path / "features" / "batches.jsonl"

    def append(self, rows: int, batches: list[Batch]) -> None:
        """Say that the bank now holds `rows` rows; `batches` are those since the last line.

        The chunk itself must be on the disk by now.
        """
        entry = {"rows": rows, "batches": [[batch.rows, batch.digest] for batch in batches]}
        line = json.dumps(entry).encode() + b"\n"
        with self._file.open("r+b") as file:
            file.truncate(self._size)  # what a killed process left of a line
            file.seek(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.rows = rows
        self.batches += batches
        self._size += len(line)


def _parsed(line: bytes) -> tuple[int, list[Batch]]:
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    entry = json.loads(line)
    return int(entry["rows"]), [Batch(int(rows), str(text)) for rows, text in entry["batches"]]
