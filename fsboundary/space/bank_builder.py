"""What a loader gives: batches of images, perhaps with labels, in a known order.

Where the features of images come from.

The bank of a loader.

Which batches of a loader a bank on disk holds: one line a chunk, appended after the chunk.

A loader's features to disk, going on where a killed process stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from tqdm import tqdm

from fsboundary.banks import BankInfo, FeatureBank, zarr_store
from fsboundary.banks.checks import checked_labels
from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.writer import ChunkWriter, begin
from fsboundary.banks.zarr_store import Layout, ZarrStore
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.models.images import check_images

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A batch as the loader gave it, and the number of its first row.

    Attributes
    ----------
    start : int
        How many rows came before.
    images : Tensor (m, ...)
        At least one.
    labels : Tensor (m,) or None
        Int64.
    """

    start: int
    images: Tensor
    labels: Tensor | None

    @property
    def stop(self) -> int:
        """The number of the first row behind it."""
        return self.start + len(self.images)

    def digest(self) -> str:
        """Return the SHA-256 of images and labels, with their shapes and dtypes."""
        found = hashlib.sha256()
        for value in (self.images, self.labels):
            if value is not None:
                found.update(f"{value.dtype} {tuple(value.shape)} ".encode())
                raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
                found.update(raw.numpy().data)
        return found.hexdigest()


def batches(loader: Iterable[Any], show_progress: bool) -> Iterator[Drawn]:
    """Yield the loader's batches, checked; those without rows are skipped.

    Raises
    ------
    ArgumentError
        No batch at all, or one that is not images or (images, labels) throughout.
    """
    start, labelled = 0, False
    for batch in tqdm(loader, unit="batch", disable=not show_progress):
        images, labels = _parts(batch)
        check_images(images)
        if len(images) == 0:
            continue
        classes = None if labels is None else checked_labels(labels, len(images)).cpu()
        if start and labelled != (classes is not None):
            wanted = "labels with every batch, or with none"
            fix = "let the loader yield (images, labels) throughout"
            raise ArgumentError("loader", f"a change at row {start}", wanted, fix)
        labelled = classes is not None
        yield Drawn(start, images, classes)
        start += len(images)
    if start == 0:
        fix = "pass a DataLoader or a list; an iterator gives its batches once only"
        raise ArgumentError("loader", "no images", "one batch at least", fix)


def check_loader(loader: object) -> None:
    """Raise ArgumentError unless `loader` can be iterated over and is no tensor."""
    if not isinstance(loader, Iterable) or isinstance(loader, Tensor):
        fix = "pass a DataLoader, or a list of batches; a tensor goes to extract(images)"
        got = f"a {type(loader).__name__}"
        raise ArgumentError("loader", got, "an iterable of batches", fix)


def refuse_shuffling(loader: object) -> None:
    """Raise ArgumentError if `loader` is known to give another order each time."""
    within = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), within, getattr(within, "sampler", None)):
        # DistributedSampler shuffles too, by default, and says so
        if isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False) is True:
            got = f"a {type(loader).__name__} with a {type(sampler).__name__}"
            wanted = "the same order each time: a bank on disk can be resumed in that order only"
            fix = "pass shuffle=False, or leave out path to build the bank in memory"
            raise ArgumentError("loader", got, wanted, fix)


def _parts(batch: object) -> tuple[Any, Any]:
    """Return images and labels (or None) of one batch."""
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    got = f"a batch that is a {type(batch).__name__}"
    if isinstance(batch, list | tuple):
        got += f" of {len(batch)}"
    fix = "wrap the loader in a generator function, or a class with __iter__, that yields these"
    raise ArgumentError("loader", got, "images, or (images, labels)", fix)


@final
@dataclass(frozen=True, slots=True)
class Source:
    """A feature space, as far as a bank needs it.

    Attributes
    ----------
    extract : callable
        Images (m, ...) to features (m,d), in one batch: the same images give the same bits only
        in the same company.
    about : callable
        The space's BankInfo, once some features were extracted.
    """

    extract: Callable[[Tensor], Tensor]
    about: Callable[[], BankInfo]

    def features(self, batch: Drawn) -> Tensor:
        """Return the features (m,d) of a batch, float32 or float64.

        Raises
        ------
        DataError
            Features are NaN or infinite; the message says which images'.
        """
        features = self.extract(batch.images)
        bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0] + batch.start
        if len(bad):
            shown = ", ".join(map(str, bad[:20].tolist())) + (", .." if len(bad) > 20 else "")
            raise DataError(
                f"loader: NaN or infinite features of {len(bad)} images, at rows {shown} (counted "
                "from 0). Leave these images out or mend them, and call again: on disk, whole "
                "chunks before them are kept"
            )
        return features if features.dtype == torch.float64 else features.to(torch.float32)


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
