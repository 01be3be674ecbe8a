"""Journal of the images that a run has finished, from which a stopped run resumes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, final

from torch import Tensor, nn

from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock
from fsboundary.pixels.certification.noise import image_digest
from fsboundary.regions.journal import MALFORMED, data_errors, line_of, parse_line, signed_line

FORMATS = {
    "classes": "fsboundary smoothed classes 1",
    "distances": "fsboundary smoothed distances 1",
    "radii": "fsboundary certified radii 1",
}
"""Format of a journal by what it keeps; changes when the noise or the lines do."""

_SAME_VALUE = 1e-3
"""Relative difference of the largest value of an image, such as its largest logit, above which the
model, or what is done before it, is another one; machines and batches differ by far less."""

_T = TypeVar("_T")


@final
class ImageJournal(Generic[_T]):
    """Entries by digest of the image, kept in a file.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    kind : str
        Of :data:`FORMATS`.
    key : str
        Digest of what the entries depend on besides the image.
    read : callable
        Conversion of the fields of a line to an entry; raises ValueError if it is impossible.
    """

    def __init__(
        self, path: Path | None, kind: str, key: str, read: Callable[[dict[str, Any]], _T]
    ) -> None:
        self.path, self._size = path, 0
        self._format, self._read_entry = FORMATS[kind], read
        self._done: dict[str, tuple[_T, float]] = {}
        if path is None:
            return
        header = line_of({"format": self._format, "key": key})
        if path.exists():
            self._read(path, header)
        if self._size == 0:
            with data_errors(path):
                path.touch()
            self._append(header)

    def find(self, digest: str, largest: float) -> _T | None:
        """Return the entry of an image, or None.

        Parameters
        ----------
        digest : str
        largest : float
            Largest value of the model at the image.
        """
        found = self._done.get(digest)
        if found is None:
            return None
        entry, stated = found
        if not math.isclose(largest, stated, rel_tol=_SAME_VALUE, abs_tol=_SAME_VALUE):
            raise ArgumentError(
                "resume",
                f"{self.path}, in which an image has the largest value {stated:g} and not "
                f"{largest:g}",
                "the file of a run with the same model, preprocess= included",
                "choose another path, or delete the file",
            )
        return entry

    def add(self, digest: str, largest: float, fields: dict[str, Any]) -> None:
        """Record the entry of one image."""
        if self.path is None:
            return
        line = {"image": digest, "largest": largest, **fields}
        self._done[digest] = self._read_entry(line), largest
        self._append(signed_line(line))

    def _append(self, line: bytes) -> None:
        assert self.path is not None
        with data_errors(self.path), self.path.open("r+b") as file:
            file.truncate(self._size)  # removes the part of a line that a killed process wrote
            file.seek(self._size)
            file.write(line)
        self._size += len(line)

    def _read(self, path: Path, header: bytes) -> None:
        if not path.is_file():  # a folder; or a device, which may never end
            self._raise_foreign_file(b"")
        with data_errors(path):
            lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) < 2 and header.startswith(b"".join(lines)):
            self._size = len(header) if lines == [header] else 0
            return
        if not lines or lines[0] != header:
            self._raise_foreign_file(lines[0] if lines else b"")
        self._size = len(header)
        for number, line in enumerate(lines[1:], start=2):
            try:
                fields = parse_line(line)
                entry = self._read_entry(fields), float(fields["largest"])
                digest = str(fields["image"])
            except MALFORMED as error:
                if number == len(lines):
                    return
                raise DataError(
                    f"{path}: line {number} is damaged ({error}). Delete this line, and its image "
                    "is computed again; or delete the file"
                ) from error
            self._done[digest] = entry
            self._size += len(line)

    def _raise_foreign_file(self, first: bytes) -> NoReturn:
        journal = self._format.rstrip("0123456789").encode() in first
        of = "of another model or other options, or of another version of fsboundary"
        raise ArgumentError(
            "resume",
            f"{self.path}, which is {of if journal else 'something else'}",
            "a new path, or the file of a run with the same model, sigma, seed and samples",
            "choose another path, or delete the file",
        )


@contextlib.contextmanager
def open_journal(
    resume: object,
    kind: str,
    model: object,
    options: dict[str, Any],
    read: Callable[[dict[str, Any]], _T],
) -> Iterator[ImageJournal[_T]]:
    """Yield the journal in the file `resume`, or one that keeps nothing on disk, for None.

    Parameters
    ----------
    resume : path or None
    kind : str
        Of :data:`FORMATS`.
    model : object
        Its parameters and buffers identify the file, with `options`.
    options : dict
    read : callable
        Conversion of the fields of a line to an entry.

    Raises
    ------
    ArgumentError
        The file belongs to another model or other options, or is not a journal.
    DataError
        Another process writes to the file, it cannot be read or written, or a line other than the
        last is damaged.
    """
    if resume is None:
        yield ImageJournal(None, kind, "", read)
        return
    assert isinstance(resume, str | os.PathLike)  # check_resume
    path = Path(resume)
    digest = hashlib.sha256(line_of(options))
    if isinstance(model, nn.Module):
        for name, value in sorted(model.state_dict().items()):
            content = image_digest(value) if isinstance(value, Tensor) else repr(value)
            digest.update(f"{name} {content}".encode())
    with data_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        yield ImageJournal(path, kind, digest.hexdigest()[:32], read)


def check_resume(resume: object) -> None:
    """Raise ArgumentError unless `resume` is a path or None."""
    fix = 'pass, for example, "smoothed.jsonl"'
    check_instance("resume", resume, (str, os.PathLike, type(None)), "a path or None", fix)
