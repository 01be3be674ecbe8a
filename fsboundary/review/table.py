"""Triage of a data set: which examples are novel, untrustworthy, mislabelled or fragile."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from fsboundary.boundaries import flip_points
from fsboundary.core.checks import check_instance, check_number
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import check_outputs, hold_lock, printable, write_files
from fsboundary.core.results import FeatureBatch, Scores
from fsboundary.core.results.base.frames import data_frame
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.review.journal import Journal, Row
from fsboundary.review.page import page_of, thumbnail
from fsboundary.scores import Reference, label_issues, novelty, pixel_margin, trust
from fsboundary.scores.training_rows import file_names, ordered_batches
from fsboundary.space import FeatureSpace
from fsboundary.space.loaders import LoaderBatch, loader_batches

if TYPE_CHECKING:
    from torch.utils.data import Dataset

COLUMNS = {
    "id": "position in the data",
    "file": "name of the file, where the data has names",
    "given": "given label",
    "predicted": "predicted class",
    "runner_up": "class with the nearest boundary",
    "flip_distance": "distance to the nearest boundary, in feature units",
    "flip_lower": "certified lower bound of it",
    "pixel_margin": "step in pixels to another class, to first order",
    "novelty": "distance of the direction to the hull of the predicted class",
    "novelty_p": "its leave-one-out p-value",
    "distrust": "a / (a + b), 1 minus the trust",
    "distrust_p": "its leave-one-out p-value",
    "label_issue": "rank of the doubt about the given label, 0 to 1",
    "label_issue_p": "its leave-one-out p-value",
    "suggested": "class of the nearest hull of other confirmed rows, if the label is suspicious",
    "novelty_verdict": "verdict in words",
    "trust_verdict": "verdict in words",
    "label_verdict": "verdict in words",
    "support_1": "training example that is most the reason",
    "support_2": "the next one",
    "support_3": "the next one",
    "status": "OK, or why a score failed",
}
"""Columns of a triage, and what they contain."""


@final
class Triage:
    """One row per example; created with :func:`fsboundary.triage` and reopened with :meth:`open`.

    Rows of a file are read when they are needed, one batch at a time.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    ...     _ = head.bias.zero_()
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> generator = torch.Generator().manual_seed(0)
    >>> means = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    >>> rows = means + torch.rand(40, 2, generator=generator)
    >>> labels = torch.arange(40) % 2
    >>> reference = fsb.Reference.fit(space, [(rows, labels)], "given")
    >>> table = fsb.triage(space, [rows[:3]], reference)
    >>> len(table), next(iter(table))["predicted"]
    (3, 0)
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Triage:
        """Open the file that :func:`fsboundary.triage` wrote, finished or not.

        Raises
        ------
        DataError
            No triage, or a damaged one.
        """
        return cls(Journal(Path(path), None))

    def __len__(self) -> int:
        return len(self._journal)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows as dicts, in the order of the data; the keys are those of the columns."""
        for row in self._journal.rows():
            yield {name: row[name] for name in COLUMNS}

    @property
    def columns(self) -> dict[str, str]:
        """Names of the columns, and what they contain."""
        return dict(COLUMNS)

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame; needs the extra ``fsboundary[pandas]``."""
        rows = list(self)
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        return data_frame(columns, "; to_csv does not need it")

    def to_csv(self, path: str | PathLike[str], *, force: bool = False) -> None:
        """Write a CSV file.

        Parameters
        ----------
        path : str or PathLike
        force : bool
            Whether a file that exists may be replaced.

        Raises
        ------
        ArgumentError
            The file exists, or cannot be written.
        """
        _write(path, _csv_lines(self), force)

    def to_parquet(self, path: str | PathLike[str], *, force: bool = False) -> None:
        """Write a Parquet file; needs pandas and pyarrow. Arguments as for :meth:`to_csv`.

        Unlike the other files, it is made of all rows in memory, several KiB each.
        """
        stream = io.BytesIO()
        frame = self.to_pandas()
        try:
            frame.to_parquet(stream)
        except ImportError:
            got, fix = "an environment without pyarrow", "pip install pyarrow, or write .csv"
            raise ArgumentError("to_parquet", got, "pyarrow", fix) from None
        _write(path, stream.getvalue(), force)

    def to_html(
        self,
        path: str | PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        title: str = "Suspects",
        force: bool = False,
    ) -> None:
        """Write one HTML page that sorts and filters in the browser, without a server.

        Suspicious examples have thumbnails if the data are images. Arguments as for
        :meth:`to_csv`; `class_names` replace the numbers of the classes.
        """
        page = page_of(self._journal.rows(), len(self), COLUMNS, class_names, title)
        _write(path, (part.encode() for part in page), force)

    def __repr__(self) -> str:
        return f"Triage({len(self)} rows)"


def _csv_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield the lines of a CSV file, one at a time."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    for row in chain([list(COLUMNS)], (map(_plain, row.values()) for row in rows)):
        writer.writerow(row)
        yield stream.getvalue().encode()
        stream.seek(0)
        stream.truncate()


def _plain(value: object) -> object:
    """Return a value of a CSV file: no control characters, and nothing for None."""
    return printable(value) if isinstance(value, str) else value


def _write(path: str | PathLike[str], content: bytes | Iterable[bytes], force: bool) -> None:
    check_outputs({"path": Path(path)}, force=force)
    write_files({Path(path): content}, force=force)


@in_standard_modes
def triage(
    space: FeatureSpace,
    data: Iterable[Any] | Dataset[Any],
    reference: Reference,
    *,
    path: str | PathLike[str] | None = None,
    training: bool = False,
    names: Sequence[str] | None = None,
    pixels: bool = True,
    level: float = 0.05,
    show_progress: bool = False,
) -> Triage:
    """Return one row per example with its scores, verdicts and supporting training examples.

    Parameters
    ----------
    space : FeatureSpace
    data : iterable or Dataset
        Batches as for :meth:`fsboundary.FeatureSpace.bank`, or a map-style dataset, with or without
        labels. Always in the same order.
    reference : Reference
        Reference of the training data, fitted with the same space.
    path : str or PathLike, optional
        File for the rows, written batch by batch, so that one batch is in memory at a time. After
        an interruption, repeat the call: the batches in the file are recognised and not computed
        again. Without it, the rows are kept in memory.
    training : bool
        Whether `data` are the training data of the reference, in the same order: each example is
        left out of the hulls that it is compared with.
    names : sequence of str, optional
        Name of each example; by default the files of a dataset such as ImageFolder, else none.
    pixels : bool
        Whether to compute pixel margins, which take one backward pass per class.
    level : float
        p-value up to which a score is suspicious.
    show_progress : bool

    Returns
    -------
    Triage

    Raises
    ------
    ArgumentError
        Wrong types, labels that are no classes, no examples, or a shuffling loader.
    HeadMismatchError
        A reference of another model.
    DataError
        `path` contains something else, or another process writes to it.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> space = fsb.FeatureSpace(torch.nn.Linear(2, 2).eval(), domain="unbounded")
    >>> rows = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [2.0, 0.0]])
    >>> reference = fsb.Reference.fit(space, [(rows, torch.tensor([0, 0, 1, 1]))], "given")
    >>> fsb.triage(space, [rows], reference)
    Triage(4 rows)
    """
    check_instance("space", space, FeatureSpace, "a FeatureSpace", "pass FeatureSpace(model)")
    fix = "pass Reference.fit(space, training_data)"
    check_instance("reference", reference, Reference, "a Reference", fix)
    check_number("level", level, 0, 1, fix="pass 0.05")
    names = file_names(data) if names is None else names
    loader = ordered_batches("data", data)
    facts = {
        "model": reference.fingerprint,
        "reference": reference.digest,
        "options": [training, pixels, level],
    }
    file = None if path is None else Path(path)
    scorer = _Scorer(space, reference, training, pixels, level, names)
    with nullcontext() if file is None else hold_lock(file):
        journal = Journal(file, facts)
        known, number = list(journal.digests), 0
        for batch in loader_batches(space.model, loader, show_progress):
            digest = batch.digest()
            if number >= len(known):
                journal.append(digest, scorer.rows(batch))
            elif known[number] != digest:
                raise DataError(
                    f"{path}: batch {number} of the data is not the one that this triage was begun "
                    "with: other data, another order or batch size. Repeat the call as it was, or "
                    "name another file"
                )
            number += 1
        if number < len(known):
            raise DataError(f"{path}: a triage of more data: {len(known)} batches, not {number}")
    return Triage(journal)


@final
class _Scorer:
    """Everything that the rows of a batch are computed from."""

    def __init__(
        self,
        space: FeatureSpace,
        reference: Reference,
        training: bool,
        pixels: bool,
        level: float,
        names: Sequence[str] | None,
    ) -> None:
        self._space, self._reference, self._names = space, reference, names
        self._training, self._pixels, self._level = training, pixels, level
        self._labelled = bool((reference.given >= 0).any())
        ids, files = reference.ids.tolist(), reference.names
        self._files = {} if files is None else dict(zip(ids, files, strict=True))

    def rows(self, batch: LoaderBatch) -> list[Row]:
        """Return the rows of a batch."""
        found = self._space.extract(batch.inputs, batch_size=batch.rows)
        given = torch.full((batch.rows,), -1) if batch.labels is None else batch.labels
        ids = torch.arange(batch.start, batch.stop)
        options: dict[str, Any] = {"level": self._level}
        if self._training:
            options["leave_out"] = ids
        novel = novelty(self._reference, found, **options)
        trusted = trust(self._reference, found, **options)
        doubt = None
        if self._labelled:
            doubt = label_issues(self._reference, found, given, **options)
        flips = flip_points(self._space.head, found.features)
        images = batch.inputs if isinstance(batch.inputs, Tensor) else None
        margins = torch.full((batch.rows,), torch.nan)
        if self._pixels and images is not None and images.is_floating_point():
            margins = pixel_margin(self._space, images).value
        table = {
            "id": ids.tolist(),
            "file": [self._name(i) for i in ids.tolist()],
            "given": [None if k < 0 else k for k in given.tolist()],
            "predicted": [None if k < 0 else k for k in found.predicted.tolist()],
            "runner_up": [None if k < 0 else k for k in flips.target[:, 0].tolist()],
            "flip_distance": _numbers(flips.distance[:, 0]),
            "flip_lower": _numbers(torch.where(flips.ok[:, 0], flips.lower_bound[:, 0], torch.nan)),
            "pixel_margin": _numbers(margins),
            **_columns("novelty", "novelty", novel, batch.rows),
            **_columns("distrust", "trust", trusted, batch.rows),
            **_columns("label_issue", "label", doubt, batch.rows),
            "suggested": _suggested(doubt, batch.rows),
            "status": _statuses(found, novel, trusted),
        }
        support = novel.support.tolist()
        for column in range(3):
            table[f"support_{column + 1}"] = [self._support(one[column]) for one in support]
        rows = [dict(zip(table, one, strict=True)) for one in zip(*table.values(), strict=True)]
        for index, row in enumerate(rows):
            suspicious = any(row[f"{s}_verdict"] == "suspicious" for s in _SCORES)
            row["thumbnail"] = None
            if row["given"] is None and self._labelled:
                row["label_verdict"] = "no label"
            if suspicious and images is not None:
                row["thumbnail"] = thumbnail(images[index])
        return rows

    def _name(self, index: int) -> str | None:
        if self._names is None or index >= len(self._names):
            return None
        return printable(self._names[index])

    def _support(self, index: int) -> str | int | None:
        """Return the file of a training example, or its position, or None for padding."""
        if index < 0:
            return None
        return printable(self._files[index]) if index in self._files else index


_SCORES = ("novelty", "trust", "label")


def _numbers(values: Tensor) -> list[float | None]:
    """Return numbers for JSON: None where there is none."""
    return [None if v != v else v for v in values.tolist()]


def _columns(column: str, word: str, found: Scores | None, rows: int) -> dict[str, list[Any]]:
    """Return the score, its p-value and the verdict of each row."""
    if found is None:
        return {column: [None] * rows, f"{column}_p": [None] * rows, f"{word}_verdict": [""] * rows}
    return {
        column: _numbers(found.score),
        f"{column}_p": _numbers(found.p_value),
        f"{word}_verdict": found.verdicts,
    }


def _suggested(found: Scores | None, rows: int) -> list[int | None]:
    """Return the suggested label where the given one is suspicious."""
    if found is None:
        return [None] * rows
    pairs = zip(found.other.tolist(), found.verdict.tolist(), strict=True)
    return [other if verdict == 1 and other >= 0 else None for other, verdict in pairs]


def _statuses(found: FeatureBatch, *scores: Scores) -> list[str]:
    """Return "OK", or the name of the first status of each row that is a failure."""
    words = ["OK"] * len(found.status)
    parts = [(one.ok, one.status) for one in reversed(scores)] + [(found.ok, found.status)]
    for ok, status in parts:
        for row in (~ok).nonzero()[:, 0].tolist():
            words[row] = Status(int(status[row])).name
    return words
