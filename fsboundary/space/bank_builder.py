"""Feature banks built from loaders, in memory or on disk, where building can be resumed.

A bank on disk has a journal, which records the batches that the bank contains: one line per chunk,
appended after the chunk was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.banks.checks import imports_dask
from fsboundary.banks.disk.contents import Contents, open_contents
from fsboundary.banks.disk.folder import (
    BankFolder,
    WrittenChunk,
    building,
    create,
    is_empty,
    writing,
)
from fsboundary.banks.disk.journal import JOURNAL, BatchRecord, Journal
from fsboundary.banks.disk.layout import Layout, read_layout, rows_per_chunk
from fsboundary.banks.disk.seal import read_seal
from fsboundary.banks.disk.writer import ChunkWriter, DiskThreads, disk_threads
from fsboundary.banks.disk.zarr_store import ZarrStore
from fsboundary.banks.memory import MemoryStore
from fsboundary.core.errors import DataError
from fsboundary.space.loaders import (
    Batch,
    FeatureSource,
    as_loader,
    loader_batches,
    reject_shuffling,
)


@runtime_checkable
class BankSource(Protocol):
    """Batches and their features, from which a bank is built."""

    def batches(self, known: int) -> Iterator[Any]:
        """Yield the batches; features of most of the first `known` will not be needed."""

    def features(self, batch: Any) -> Tensor:
        """Return the features (m,d) of a batch, as :meth:`FeatureSource.features`."""

    def info(self) -> BankInfo:
        """Return the origin of the features, once some were extracted."""


@final
class _LocalSource:
    """The batches of a loader, extracted by this process."""

    def __init__(self, source: FeatureSource, loader: Iterable[Any], show_progress: bool) -> None:
        self.features, self.info = source.features, source.info
        self._model, self._loader, self._show_progress = source.space.model, loader, show_progress

    def batches(self, known: int) -> Iterator[Any]:
        return loader_batches(self._model, self._loader, self._show_progress)


def build_bank(
    source: FeatureSource,
    loader: Iterable[Any] | Dataset[Any],
    path: str | PathLike[str] | None,
    show_progress: bool,
    client: object,
) -> FeatureBank:
    """Return the bank of a loader; see :meth:`fsboundary.FeatureSpace.bank`."""
    fix = "pass a DataLoader, or a list of batches; pass a tensor to extract(inputs)"
    loader = as_loader("loader", loader, "an iterable of batches", fix)
    if path is not None:
        reject_shuffling(loader)
    batches: BankSource = _LocalSource(source, loader, show_progress)
    if client is not None:
        with imports_dask(client):  # here: other banks need no dask
            from fsboundary.space.worker_batches import WorkerSource
        batches = WorkerSource(source, loader, client, show_progress)
    if path is None:
        return _build_in_memory(batches)
    stream_to_disk(batches, Path(path))
    return FeatureBank.open(path)


def _build_in_memory(source: BankSource) -> FeatureBank:
    parts, classes = [], []
    for batch in source.batches(0):
        parts.append(source.features(batch))
        if batch.labels is not None:
            classes.append(batch.labels)
    features = torch.cat(parts)
    labels = torch.cat(classes).to(features.device) if classes else None
    ids = torch.arange(len(features), device=features.device)
    return FeatureBank.of(MemoryStore(features, labels, ids, source.info()))


_SAME_ORDER = (
    "The examples or their order changed: a shuffling sampler, a random transform, another batch "
    "size, or other data. Use the loader as before (shuffle=False, no random transforms), or "
    "choose another path"
)


def stream_to_disk(source: BankSource, path: Path) -> None:
    """Write the features of all batches to the bank at `path`, resuming it if it is unfinished.

    After each chunk, a journal line that lists its batches is written; rows that no line lists are
    removed and recomputed. Batches in the journal are loaded again and recognised by their digests;
    the model runs only on the first and the last of them, for comparison.

    Raises
    ------
    DataError
        The bank belongs to another head, to other examples or another order, or to a body that
        computes something else; or features are not finite.
    """
    with building(path) as verify_lock, disk_threads() as threads:
        bank = None if is_empty(path) else _PartialBank(path, verify_lock, threads)
        number, known = -1, 0 if bank is None else len(bank.known)
        for number, batch in enumerate(source.batches(known)):
            record = BatchRecord(batch.rows, batch.digest())
            if bank is not None and number < known:
                bank.verify_stored(source, number, batch, record)
                continue
            features = source.features(batch)
            if bank is None:
                dtype = str(features.dtype).removeprefix("torch.")
                width, rows = features.shape[1], len(features)
                chunk = rows_per_chunk(width, dtype, rows)
                layout = Layout(width, dtype, chunk, batch.labels is not None, source.info())
                with writing(path, lambda: _AFTER_FAILURE.format(0)):
                    create(path, layout)
                bank = _PartialBank(path, verify_lock, threads)
            elif number == 0:
                bank.verify_head(source)
            bank.add(batch, features, record)
        assert bank is not None, "a loader without batches was rejected"
        bank.finish(number + 1)


_AFTER_FAILURE = (
    "{} rows are on the disk and are kept. Free some space there, or fix what is wrong, and call "
    "FeatureSpace.bank(loader, path) as before: it continues after them"
)


@final
class _PartialBank:
    """A bank on disk that may be incomplete.

    Parameters
    ----------
    path : Path
        Folder of the bank.
    verify_lock : callable, optional
        Function that raises DataError if another process may write too; None if the bank is
        complete.
    threads : DiskThreads
        Threads that write.
    """

    def __init__(
        self, path: Path, verify_lock: Callable[[], None] | None, threads: DiskThreads
    ) -> None:
        self._layout, group = read_layout(path)
        self._threads = threads
        self._path, self._verify_lock, self._journal = path, verify_lock, Journal(path)
        rows, chunks = self._journal.rows, self._journal.checksums
        self._contents = Contents(path, self._layout, rows, chunks)
        intact = self._journal.group == group
        if verify_lock is None:
            self._contents = open_contents(path)
            seal = read_seal(path)
            intact &= seal is not None and seal.checksums[JOURNAL] == self._journal.checksum
        if not intact:
            raise DataError(
                f"{path}: a damaged feature bank: its metadata or its journal were changed. "
                "Restore it from a copy, or create it again"
            )
        self.known = tuple(self._journal.batches)
        self._num_rows = self._journal.rows
        self._chunk_writer: ChunkWriter | None = None

    def verify_stored(
        self, source: BankSource, number: int, batch: Batch, record: BatchRecord
    ) -> None:
        """Check a batch that the journal records, and add rows that its chunk does not contain."""
        last = number == len(self.known) - 1
        features = source.features(batch) if number == 0 or last else None
        if number == 0:
            self.verify_head(source)
        if record != self.known[number]:
            raise DataError(
                f"{self._path}: batch {number} of the loader (rows {batch.start} to "
                f"{batch.stop - 1}) is not the one that this bank was built from. {_SAME_ORDER}"
            )
        if features is None:
            return
        self._verify_dtype(features)
        stop = min(batch.stop, self._num_rows)
        store = ZarrStore(self._path, self._contents)
        stored = store.take(torch.arange(batch.start, stop))
        computed = features[: stop - batch.start].cpu().to(torch.float64)
        if not torch.equal(stored, computed):
            raise DataError(
                f"{self._path}: features of batch {number} (rows {batch.start} to {stop - 1}) "
                f"differ by up to {float((stored - computed).abs().max()):.3g} from those stored. "
                "The model's body or preprocessing changed, or it computes on another device or "
                "number of threads. Continue as the bank was begun, or choose another path"
            )
        if batch.stop > stop:  # a batch larger than those before it, split by its chunk
            rest = slice(stop - batch.start, None)
            labels = None if batch.labels is None else batch.labels[rest]
            ids = torch.arange(stop, batch.stop)
            self._append(features[rest], labels, ids)

    def verify_head(self, source: BankSource) -> None:
        """Raise DataError if the bank belongs to another head, extractor or layer."""
        expected, other = self._layout.info.fingerprint, source.info().fingerprint
        if expected != other:
            raise DataError(
                f"{self._path}: a bank of another head, extractor or layer: its fingerprint is "
                f"{expected}, this space's is {other}. Use the model that the bank was built with, "
                "or choose another path"
            )

    def _verify_dtype(self, features: Tensor) -> None:
        """Raise DataError unless features are stored in the dtype of the bank."""
        dtype = self._layout.torch_dtype("features")
        if features.dtype != dtype:
            raise DataError(
                f"{self._path}: a bank of {dtype}; this call would store {features.dtype}. Pass "
                f"dtype={dtype}, or choose another path"
            )

    def add(self, batch: Batch, features: Tensor, record: BatchRecord) -> None:
        """Append a batch that the journal does not record."""
        if self._verify_lock is None or self._num_rows % self._layout.chunk_rows:
            raise DataError(
                f"{self._path}: the loader goes on after row {self._num_rows - 1}, where it ended "
                f"when this bank was built. {_SAME_ORDER}"
            )
        if (batch.labels is not None) != self._layout.labelled:
            present = "labels" if self._layout.labelled else "no labels"
            raise DataError(
                f"{self._path}: the bank has {present}, unlike the loader. {_SAME_ORDER}"
            )
        self._verify_dtype(features)
        self._append(features, batch.labels, torch.arange(batch.start, batch.stop), record)

    def finish(self, num_batches: int) -> None:
        """Write pending rows and mark the bank as complete."""
        if num_batches < len(self.known):
            raise DataError(
                f"{self._path}: the loader ended after {num_batches} batches; the bank holds "
                f"{len(self.known)} or more. {_SAME_ORDER}"
            )
        if self._verify_lock is not None:
            self._verify_lock()
            with self._writing():
                self._writer().finish()

    def _append(
        self, features: Tensor, labels: Tensor | None, ids: Tensor, *records: BatchRecord
    ) -> None:
        with self._writing():
            self._writer().add(features, labels, ids, *records)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._path, lambda: _AFTER_FAILURE.format(self._journal.rows))

    def _writer(self) -> ChunkWriter:
        if self._chunk_writer is None:
            chunks, verify = self._journal.checksums, self._verify_lock
            folder = BankFolder(self._path, self._layout, chunks, verify, self._record)
            self._chunk_writer = ChunkWriter(folder, self._threads, self._num_rows)
        return self._chunk_writer

    def _record(self, chunks: Sequence[WrittenChunk]) -> None:
        self._journal.append(*((one.rows, one.records, one.checksums) for one in chunks))
