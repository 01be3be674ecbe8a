"""Feature banks built from loaders, in memory or on disk, where building can be resumed.

A bank on disk has a journal, which records the batches that the bank contains: one line per chunk,
appended after the chunk was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from tqdm import tqdm

from fsboundary.banks import BankInfo, FeatureBank
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
from fsboundary.banks.streams import round_features, stored_dtype
from fsboundary.core.checks import check_labels, describe
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.models.inputs import model_arguments
from fsboundary.models.structures import leaves_of, map_leaves

if TYPE_CHECKING:
    from fsboundary.space.feature_space import FeatureSpace

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@final
@dataclass(frozen=True, slots=True, eq=False)
class LoaderBatch:
    """A batch from the loader, and the index of its first row.

    Attributes
    ----------
    start : int
        Number of rows before the batch.
    inputs : object
        Inputs of the model, as for :meth:`fsboundary.FeatureSpace.extract`.
    rows : int
        Number of examples m, at least one.
    labels : Tensor (m,) or None
        Class of each example, int64.
    """

    start: int
    inputs: Any
    rows: int
    labels: Tensor | None

    @property
    def stop(self) -> int:
        """Index after the last row."""
        return self.start + self.rows

    def digest(self) -> str:
        """Return the SHA-256 of inputs and labels, with their structure, shapes and dtypes."""
        digest = hashlib.sha256()
        if not isinstance(self.inputs, Tensor):
            digest.update(f"{map_leaves(_describe_leaf, self.inputs)} ".encode())
        tensors = [leaf for leaf in leaves_of(self.inputs) if isinstance(leaf, Tensor)]
        for value in (*tensors, self.labels):
            if value is None:
                continue
            for part in value.unbind() if value.is_nested else (value,):
                digest.update(f"{part.dtype} {tuple(part.shape)} ".encode())
                raw = part.detach().cpu().contiguous().view(-1).view(torch.uint8)
                digest.update(raw.numpy().data)
        return digest.hexdigest()


def _describe_leaf(leaf: object) -> object:
    """Return a leaf that says the same in every process: no address, and no numbers of tensors."""
    plain = leaf is None or isinstance(leaf, str | int | float | torch.dtype | torch.device)
    return leaf if plain else type(leaf).__name__


def loader_batches(
    model: nn.Module, loader: Iterable[Any], show_progress: bool
) -> Iterator[LoaderBatch]:
    """Yield the validated batches of the loader; empty batches are skipped.

    Raises
    ------
    ArgumentError
        No batch at all, or one that is neither inputs nor (inputs, labels), or a change between the
        two.
    """
    start, labelled = 0, False
    for batch in tqdm(loader, unit="batch", disable=not show_progress):
        inputs, labels = split_batch(batch)
        rows = model_arguments(model, inputs).rows
        if rows == 0:
            continue
        classes = None if labels is None else check_labels(labels, rows).cpu()
        if start and labelled != (classes is not None):
            wanted = "labels with every batch, or with none"
            fix = "let the loader yield (inputs, labels) throughout"
            raise ArgumentError("loader", f"a change at row {start}", wanted, fix)
        labelled = classes is not None
        yield LoaderBatch(start, inputs, rows, classes)
        start += rows
    if start == 0:
        fix = "pass a DataLoader or a list; an iterator yields its batches only once"
        raise ArgumentError("loader", "no examples", "at least one batch", fix)


def reject_shuffling(loader: object) -> None:
    """Raise ArgumentError if `loader` is known to yield a different order each time."""
    outer = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), outer, getattr(outer, "sampler", None)):
        # DistributedSampler shuffles too, by default, and has an attribute for it
        if isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False) is True:
            got = f"a {type(loader).__name__} with a {type(sampler).__name__}"
            wanted = "the same order each time: a bank on disk can be resumed only in that order"
            fix = "pass shuffle=False, or leave out path to build the bank in memory"
            raise ArgumentError("loader", got, wanted, fix)


_LABELS = ("labels", "label")
"""Keys of the labels in batches of the collators of transformers and datasets."""


def split_batch(batch: object) -> tuple[Any, Any]:
    """Return inputs and labels (or None) of one batch."""
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        labels = next((batch[key] for key in _LABELS if key in batch), None)
        return {key: part for key, part in batch.items() if key not in _LABELS}, labels
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        inputs, labels = batch[0], batch[1] if len(batch) == 2 else None
        if isinstance(labels, Tensor) and labels.ndim > 1:
            raise ArgumentError(
                "loader",
                f"a pair whose second part has shape {tuple(labels.shape)}",
                "(inputs, labels) with one class number per example",
                "for a second input of the model, let the loader yield ((first, second), labels), "
                "or ((first, second),) without labels",
            )
        # a DataLoader collates pairs of inputs to a list, which is no list of examples
        if isinstance(inputs, list) and labels is not None and _all_have_rows(inputs, labels):
            inputs = tuple(inputs)
        return inputs, labels
    got = f"a batch that is a {type(batch).__name__}"
    if isinstance(batch, list | tuple):
        got += f" of {len(batch)}"
    fix = "wrap the loader in a generator function, or a class with __iter__, that yields these; "
    fix += "several inputs are a tuple, as in ((first, second), labels)"
    wanted = 'inputs, (inputs, labels), or a mapping with inputs and "labels"'
    raise ArgumentError("loader", got, wanted, fix)


def _all_have_rows(inputs: list[Any], labels: Any) -> bool:
    """Return whether all of `inputs` have a row per label, and are not as many as these."""
    leaves, rows = leaves_of(inputs), len(labels)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim > 0]
    return len(inputs) != rows and all(t.size(0) == rows for t in tensors)


@final
@dataclass(frozen=True, slots=True)
class FeatureSource:
    """The features of a space, as a bank stores them.

    Attributes
    ----------
    space : FeatureSpace
        Space whose features are stored.
    dtype : torch.dtype or None
        Dtype in which they are stored.
    """

    space: FeatureSpace
    dtype: torch.dtype | None = None

    def info(self) -> BankInfo:
        """Return the origin of the features, once some were extracted."""
        space, kind = self.space, type(self.space.extractor)
        name, layer = f"{kind.__module__}.{kind.__qualname__}", space.notes().get("layer", "")
        return BankInfo(space.fingerprint, name, layer, space.domain.kind)

    def features(self, batch: LoaderBatch) -> Tensor:
        """Return the features (m,d) of a batch, in the dtype in which they are stored.

        Raises
        ------
        ArgumentError
            Labels that are no classes of the model.
        DataError
            Features are NaN or infinite, or beyond the range of the dtype; the message lists the
            rows.
        """
        # one batch, because the same inputs give the same bits only within the same batch
        found = self.space.extract(batch.inputs, batch_size=batch.rows)
        features = found.features
        if batch.labels is not None:
            check_labels(batch.labels, len(features), num_classes=found.logits.shape[1])
        bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0] + batch.start
        if len(bad):
            shown = ", ".join(map(str, bad[:20].tolist())) + (", .." if len(bad) > 20 else "")
            raise DataError(
                f"loader: NaN or infinite features of {len(bad)} examples, at rows {shown} "
                "(counted from 0). Leave these out or fix them, and call again: on disk, whole "
                "chunks before them are kept"
            )
        return round_features(features, stored_dtype(features.dtype, self.dtype), batch.start)


def build_bank(
    source: FeatureSource,
    loader: Iterable[Any],
    path: str | PathLike[str] | None,
    show_progress: bool,
) -> FeatureBank:
    """Return the bank of a loader; see :meth:`fsboundary.FeatureSpace.bank`."""
    fix = "pass a DataLoader, or a list of batches; pass a tensor to extract(inputs)"
    if not isinstance(loader, Iterable) or isinstance(loader, Tensor):
        raise ArgumentError("loader", describe(loader), "an iterable of batches", fix)
    if path is None:
        return _build_in_memory(source, loader_batches(source.space.model, loader, show_progress))
    reject_shuffling(loader)
    stream_to_disk(source, loader_batches(source.space.model, loader, show_progress), Path(path))
    return FeatureBank.open(path)


def _build_in_memory(source: FeatureSource, batches: Iterator[LoaderBatch]) -> FeatureBank:
    parts, classes = [], []
    for batch in batches:
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


def stream_to_disk(source: FeatureSource, batches: Iterator[LoaderBatch], path: Path) -> None:
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
        number = -1
        for number, batch in enumerate(batches):
            record = BatchRecord(batch.rows, batch.digest())
            if bank is not None and number < len(bank.known):
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
        self, source: FeatureSource, number: int, batch: LoaderBatch, record: BatchRecord
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

    def verify_head(self, source: FeatureSource) -> None:
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

    def add(self, batch: LoaderBatch, features: Tensor, record: BatchRecord) -> None:
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
