"""Journal of the images whose noisy copies were counted, from which a stopped run resumes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

from torch import Tensor, nn

from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock
from fsboundary.pixels.certification.noise import image_digest
from fsboundary.regions.journal import MALFORMED, data_errors, line_of, parse_line, signed_line

FORMAT = "fsboundary smoothed classes 1"
"""Format of a journal; changes when the noise or the lines do."""

_SAME_LOGIT = 1e-3
"""Relative difference of the largest logit of an image above which the model, or what is done
before it, is another one; machines and batches differ by far less."""


class Counts(NamedTuple):
    """Class that most noisy copies of the selection have, and how many of the estimation do."""

    selected: int
    hits: int


@final
class CountJournal:
    """Counts by digest of the image, kept in a file.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    key : str
        Digest of what the counts depend on besides the image.
    num_classes, samples : int
        Limits of the counts.
    """

    def __init__(self, path: Path | None, key: str, num_classes: int, samples: int) -> None:
        self._file, self._size = path, 0
        self._limits = num_classes, samples
        self._done: dict[str, tuple[Counts, float]] = {}
        if path is None:
            return
        header = line_of({"format": FORMAT, "key": key})
        if path.exists():
            self._read(path, header)
        if self._size == 0:
            with data_errors(path):
                path.touch()
            self._append(header)

    def find(self, digest: str, logit: float) -> Counts | None:
        """Return the counts of an image, or None.

        Parameters
        ----------
        digest : str
        logit : float
            Largest logit of the image.
        """
        found = self._done.get(digest)
        if found is None:
            return None
        counts, stated = found
        if not math.isclose(logit, stated, rel_tol=_SAME_LOGIT, abs_tol=_SAME_LOGIT):
            raise ArgumentError(
                "resume",
                f"{self._file}, in which an image has the largest logit {stated:g} and not "
                f"{logit:g}",
                "the file of a run with the same model, preprocess= included",
                "choose another path, or delete the file",
            )
        return counts

    def add(self, digest: str, logit: float, counts: Counts) -> None:
        """Record the counts of one image."""
        if self._file is None:
            return
        self._done[digest] = counts, logit
        self._append(signed_line({"image": digest, "logit": logit, **counts._asdict()}))

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        with data_errors(self._file), self._file.open("r+b") as file:
            file.truncate(self._size)  # removes the part of a line that a killed process wrote
            file.seek(self._size)
            file.write(line)
        self._size += len(line)

    def _read(self, path: Path, header: bytes) -> None:
        if not path.is_file():  # a folder; or a device, which may never end
            _raise_foreign_file(path, b"")
        with data_errors(path):
            lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) < 2 and header.startswith(b"".join(lines)):
            self._size = len(header) if lines == [header] else 0
            return
        if not lines or lines[0] != header:
            _raise_foreign_file(path, lines[0] if lines else b"")
        self._size = len(header)
        for number, line in enumerate(lines[1:], start=2):
            try:
                digest, counts, logit = self._parse(line)
            except MALFORMED as error:
                if number == len(lines):
                    return
                raise DataError(
                    f"{path}: line {number} is damaged ({error}). Delete this line, and its image "
                    "is counted again; or delete the file"
                ) from error
            self._done[digest] = counts, logit
            self._size += len(line)

    def _parse(self, line: bytes) -> tuple[str, Counts, float]:
        entry = parse_line(line)
        counts = Counts(entry["selected"], entry["hits"])
        num_classes, samples = self._limits
        if not (0 <= counts.selected < num_classes and 0 <= counts.hits <= samples):
            raise ValueError(f"it states the counts {tuple(counts)}")
        return str(entry["image"]), counts, float(entry["logit"])


def _raise_foreign_file(path: Path, first: bytes) -> None:
    journal = FORMAT.rstrip("0123456789").encode() in first
    of = "of another model, sigma, seed or number of samples, or of another version of fsboundary"
    raise ArgumentError(
        "resume",
        f"{path}, which is {of if journal else 'something else'}",
        "a new path, or the file of a run with the same model, sigma, seed and numbers of samples",
        "choose another path, or delete the file",
    )


@contextlib.contextmanager
def open_counts(
    resume: object, model: object, options: dict[str, Any], num_classes: int, samples: int
) -> Iterator[CountJournal]:
    """Yield the journal in the file `resume`, or one that keeps nothing on disk, for None.

    Parameters
    ----------
    resume : path or None
    model : object
        Its parameters and buffers identify the file, with `options`.
    options : dict
    num_classes, samples : int

    Raises
    ------
    ArgumentError
        The file belongs to another model or other options, or is not a journal.
    DataError
        Another process writes to the file, it cannot be read or written, or a line other than the
        last is damaged.
    """
    if resume is None:
        yield CountJournal(None, "", num_classes, samples)
        return
    assert isinstance(resume, str | os.PathLike)  # check_resume
    path = Path(resume)
    digest = hashlib.sha256(line_of(options | {"classes": num_classes}))
    if isinstance(model, nn.Module):
        for name, value in sorted(model.state_dict().items()):
            content = image_digest(value) if isinstance(value, Tensor) else repr(value)
            digest.update(f"{name} {content}".encode())
    with data_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        yield CountJournal(path, digest.hexdigest()[:32], num_classes, samples)


def check_resume(resume: object) -> None:
    """Raise ArgumentError unless `resume` is a path or None."""
    fix = 'pass, for example, "smoothed.jsonl"'
    check_instance("resume", resume, (str, os.PathLike, type(None)), "a path or None", fix)
