"""The bank of a loader.

Which batches of a loader a bank on disk holds: one line a chunk, appended after the chunk.

A loader's features to disk, going on where a killed process stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch

from fsboundary.banks import FeatureBank, zarr_store
from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.writer import ChunkWriter, begin
from fsboundary.banks.zarr_store import Layout, ZarrStore
from fsboundary.core.errors import DataError
from fsboundary.space.loader import Drawn, Source, batches, check_loader, refuse_shuffling


def build(
    source: Source, loader: Iterable[Any], path: str | PathLike[str] | None, show_progress: bool
) -> FeatureBank:
    """Return the bank of a loader; see :meth:`fsboundary.FeatureSpace.bank`."""
    check_loader(loader)
    if path is None:
        return _in_memory(source, batches(loader, show_progress))
    refuse_shuffling(loader)

    stream(source, batches(loader, show_progress), Path(path))
    return FeatureBank.open(path)


def _in_memory(source: Source, drawn: Iterator[Drawn]) -> FeatureBank:
    parts, classes = [], []
    for batch in drawn:
        parts.append(source.features(batch))
        if batch.labels is not None:
            classes.append(batch.labels)
    features = torch.cat(parts)
    labels = torch.cat(classes).to(features.device) if classes else None
    ids = torch.arange(len(features), device=features.device)
    return FeatureBank.of(MemoryStore(features, labels, ids, source.about()))


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


_ORDER = (
    "The images or their order changed: a shuffling sampler, a random transform, another batch "
    "size, or other data. Use the loader as before (shuffle=False, no random transforms), or "
    "choose another path"
)


def stream(source: Source, drawn: Iterator[Drawn], path: Path) -> None:
    """Bring the bank at `path` to hold all that the loader gives.

    A chunk is written, then a line of the journal that names its batches; what no line names is
    removed and computed again. Batches that the journal names are drawn, and recognised by their
    digests; the model runs on the first and the last of them alone, to compare.

    Raises
    ------
    DataError
        The bank is of another head, of other images or another order, or of a body that computes
        something else; or features are not finite.
    """
    growing: _Growing | None = None
    if path.exists() and not _is_empty(path):
        growing = _Growing(path)
    number = -1
    for number, batch in enumerate(drawn):
        entry = Batch(len(batch.images), batch.digest())
        if growing is not None and number < len(growing.known):
            growing.recognise(source, number, batch, entry)
            continue
        features = source.features(batch)
        if growing is None:
            dtype = str(features.dtype).removeprefix("torch.")
            width, rows = features.shape[1], len(features)
            chunk = zarr_store.rows_of_chunk(width, dtype, rows)
            about = Layout(width, dtype, chunk, batch.labels is not None, source.about())
            begin(path, about, Journal.file(Path()))
            growing = _Growing(path)
        elif number == 0:
            growing.compare_heads(source)
        growing.add(batch, features, entry)
    assert growing is not None, "a loader without batches was refused"
    growing.finish(number + 1)


@final
class _Growing:
    """A bank on disk that may not be complete."""

    def __init__(self, path: Path) -> None:
        _, self._layout, self._complete = zarr_store.open_arrays(path)
        self._path, self._journal = path, Journal(path)
        self.known = tuple(self._journal.batches)
        self._held = self._journal.rows
        self._writer: ChunkWriter | None = None
        self._new: list[Batch] = []

    def recognise(self, source: Source, number: int, batch: Drawn, entry: Batch) -> None:
        """Check a batch that the journal names, and take over rows that its chunk has not."""
        last = number == len(self.known) - 1
        features = source.features(batch) if number == 0 or last else None
        if number == 0:
            self.compare_heads(source)
        if entry != self.known[number]:
            raise DataError(
                f"{self._path}: batch {number} of the loader (rows {batch.start} to "
                f"{batch.stop - 1}) is not the one that this bank was made of. {_ORDER}"
            )
        if features is None:
            return
        stop = min(batch.stop, self._held)
        store = ZarrStore(self._path, committed=self._held)
        stored = store.take(torch.arange(batch.start, stop))
        fresh = features[: stop - batch.start].cpu().to(torch.float64)
        if not torch.equal(stored, fresh):
            raise DataError(
                f"{self._path}: features of batch {number} (rows {batch.start} to {stop - 1}) "
                f"differ by up to {float((stored - fresh).abs().max()):.3g} from those stored. "
                "The model's body or preprocessing changed, or it computes on another device or "
                "number of threads. Go on as the bank was begun, or choose another path"
            )
        if batch.stop > stop:  # a batch larger than those before it, which its chunk cut
            rest = slice(stop - batch.start, None)
            labels = None if batch.labels is None else batch.labels[rest]
            ids = torch.arange(stop, batch.stop)
            self._ready().add(features[rest], labels, ids)

    def compare_heads(self, source: Source) -> None:
        """Raise DataError if the bank is of another head, extractor or layer."""
        own, other = self._layout.info.fingerprint, source.about().fingerprint
        if own != other:
            raise DataError(
                f"{self._path}: a bank of another head, extractor or layer: its fingerprint is "
                f"{own}, this space's is {other}. Use the model that the bank was made with, or "
                "choose another path"
            )

    def add(self, batch: Drawn, features: torch.Tensor, entry: Batch) -> None:
        """Append a batch that the journal does not name."""
        if self._complete or self._held % self._layout.chunk_rows:
            raise DataError(
                f"{self._path}: the loader goes on after row {self._held - 1}, where it ended "
                f"when this bank was made. {_ORDER}"
            )
        if (batch.labels is not None) != self._layout.labelled:
            have = "labels" if self._layout.labelled else "no labels"
            raise DataError(f"{self._path}: the bank has {have}, unlike the loader. {_ORDER}")
        self._new.append(entry)
        self._ready().add(features, batch.labels, torch.arange(batch.start, batch.stop))

    def finish(self, drawn: int) -> None:
        """Write what waits and mark the bank as complete."""
        if drawn < len(self.known):
            raise DataError(
                f"{self._path}: the loader ended after {drawn} batches; the bank holds "
                f"{len(self.known)} or more. {_ORDER}"
            )
        if not self._complete:
            self._ready().finish()

    def _ready(self) -> ChunkWriter:
        if self._writer is None:
            self._writer = ChunkWriter(self._path, self._held, self._commit)
        return self._writer

    def _commit(self, rows: int) -> None:
        self._journal.append(rows, self._new)
        self._new = []


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
