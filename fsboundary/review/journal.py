"""Rows of a triage, in memory or in a file of one line per batch that a later call continues.

The file is text: a line of JSON that says what the rows are of, then one line per batch with the
digest of the batch and its rows. A line that was not finished when the process ended is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from fsboundary.core.errors import DataError

Row = dict[str, Any]


@final
class Journal:
    """Batches of rows, appended in order.

    Parameters
    ----------
    path : Path or None
        File of the rows; None to keep them in memory.
    facts : dict or None
        What the rows are of; a file of other facts is refused. None to read a file as it is.

    Raises
    ------
    DataError
        The file is damaged, is no triage, or is of other data, another model or other options.
    """

    def __init__(self, path: Path | None, facts: dict[str, Any] | None) -> None:
        self._path, self._held = path, []  # type: tuple[Path | None, list[list[Row]]]
        self.digests: list[str] = []
        self.facts: dict[str, Any] = facts or {}
        self._rows = 0
        if path is not None:
            self._resume(path, facts)

    def __len__(self) -> int:
        return self._rows

    def _resume(self, path: Path, facts: dict[str, Any] | None) -> None:
        """Read the digests of the batches that the file holds, and remove an unfinished line."""
        if facts is not None and (not path.exists() or path.stat().st_size == 0):
            with path.open("wb") as file:
                _append(file, {"format": FORMAT, "facts": facts})
            return
        whole = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file):
                    if not line.endswith(b"\n"):
                        break
                    found = json.loads(line)
                    if number == 0:
                        self._check_facts(path, found, facts)
                    else:
                        self.digests.append(found["digest"])
                        self._rows += len(found["rows"])
                    whole += len(line)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except DataError:  # a ValueError too
            raise
        except (ValueError, KeyError, TypeError) as error:
            fix = "Delete it and run again, or name another file"
            raise DataError(f"{path}: a damaged triage, or another file. {fix}") from error
        if whole == 0:
            raise DataError(f"{path}: no triage. Delete it and run again, or name another file")
        if facts is not None and whole < path.stat().st_size:
            os.truncate(path, whole)

    def _check_facts(self, path: Path, found: Any, facts: dict[str, Any] | None) -> None:
        if found["format"] != FORMAT:
            raise ValueError(found["format"])
        self.facts = found["facts"]
        other = [k for k, v in (facts or {}).items() if self.facts.get(k) != v]
        if other:
            raise DataError(
                f"{path}: a triage of another {', '.join(other)}. Continue it with what it was "
                "begun with, or name another file"
            )

    def append(self, digest: str, rows: list[Row]) -> None:
        """Add a batch; in a file, it is on the disk when this returns."""
        self.digests.append(digest)
        self._rows += len(rows)
        if self._path is None:
            self._held.append(rows)
            return
        try:
            with self._path.open("ab") as file:
                _append(file, {"digest": digest, "rows": rows})
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be written ({error.strerror}). Free space and run again: "
                "the batches before this one are kept"
            ) from error

    def rows(self) -> Iterator[Row]:
        """Yield all rows, in order; of a file, one batch is in memory at a time."""
        if self._path is None:
            for batch in self._held:
                yield from batch
            return
        with self._path.open("rb") as file:
            next(file)
            for line in file:
                yield from json.loads(line)["rows"]


FORMAT = "fsboundary triage 1"
"""Name and version of the format, in the first line."""


def _append(file: Any, content: dict[str, Any]) -> None:
    file.write(json.dumps(content).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
