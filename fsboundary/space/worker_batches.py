"""Batches of a loader that the workers of a dask cluster read and extract.

Each batch is one task. Workers return features, labels and digests; the client puts them in order,
so that the bank is the one that a single process builds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fsboundary.banks import BankInfo
from fsboundary.banks.cluster.distributed import connect
from fsboundary.banks.store import to_array, to_tensor
from fsboundary.core.checks import describe
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.modes import in_standard_modes
from fsboundary.progress import tqdm
from fsboundary.space.loaders import Batch, FeatureSource, LoaderBatch, in_order, read_batch


@final
@dataclass(frozen=True, slots=True, eq=False)
class _WorkerBatch(Batch):
    """A batch that a worker read; `inputs` is a function that returns its :class:`_Extracted`.

    Attributes
    ----------
    content : str
        Digest of inputs and labels.
    """

    content: str

    def digest(self) -> str:
        """Return the SHA-256 of inputs and labels."""
        return self.content


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Extracted:
    """Features (m,d) as an array, the number of classes, and the origin of the features."""

    features: Any
    num_classes: int
    info: BankInfo


@final
class WorkerSource:
    """The batches of a loader, extracted by workers.

    Parameters
    ----------
    source : FeatureSource
        Space, which is sent to the workers, and dtype.
    loader : DataLoader or sequence
        Batches that can be read in any order.
    client : object
        Client of the cluster.
    show_progress : bool
        Whether to show a progress bar on standard error.

    Raises
    ------
    ArgumentError
        A loader whose batches can only be read one after the other, or not a client.
    """

    def __init__(
        self, source: FeatureSource, loader: object, client: object, show_progress: bool
    ) -> None:
        self._cluster, self._source, self._show_progress = connect(client), source, show_progress
        dataset, self._parts = _split(loader)
        self._shared = source, dataset
        self._info: BankInfo | None = None

    def info(self) -> BankInfo:
        """Return the origin of the features, once some were extracted."""
        assert self._info is not None, "features are extracted first"
        return self._info

    def features(self, batch: Batch) -> Tensor:
        """Return the features (m,d) of a batch, as :meth:`FeatureSource.features`.

        Raises
        ------
        DataError
            Also if the workers have different heads.
        """
        found: _Extracted = batch.inputs()
        if self._info not in (None, found.info):
            raise DataError(
                f"workers found different heads, extractors or layers: {self._info} and "
                f"{found.info}. Start all with the same versions and files"
            )
        self._info = found.info
        return self._source.check(batch, to_tensor(found.features), found.num_classes)

    def batches(self, known: int) -> Iterator[Batch]:
        """Yield the batches; most of the first `known` are only read, and extracted if needed."""
        return in_order(self._read(known))

    def _read(self, known: int) -> Iterator[Batch]:
        tasks = (
            (part, number == 0 or number >= known - 1) for number, part in enumerate(self._parts)
        )
        found = self._cluster.stream(extract_batch, tasks, self._shared)
        parts = tqdm(self._parts, unit="batch", disable=not self._show_progress)
        for part, (rows, labels, digest, extracted) in zip(parts, found, strict=True):
            yield _WorkerBatch(0, self._extraction(part, extracted), rows, labels, digest)

    def _extraction(self, part: object, found: _Extracted | None) -> Callable[[], _Extracted]:
        def extract() -> _Extracted:
            if found is not None:
                return found
            (batch,) = self._cluster.stream(extract_batch, [(part, True)], self._shared)
            extracted: _Extracted = batch[3]
            return extracted

        return extract


def _split(loader: object) -> tuple[object, Sequence[Any]]:
    """Return what all workers need to read batches, and what each batch needs.

    Raises
    ------
    ArgumentError
        The batches can only be read one after the other.
    """
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        # without a sampler of batches, each item is a batch
        sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        return (loader.dataset, loader.collate_fn), list(sampler)
    if isinstance(loader, Sequence):
        return None, loader
    got = describe(loader)
    if isinstance(loader, DataLoader):
        got = "a DataLoader of an IterableDataset"
    wanted = "a DataLoader, a dataset or a list of batches, which workers read in any order"
    fix = "pass a dataset with __len__ and __getitem__, or leave out client"
    raise ArgumentError("loader", got, wanted, fix)


_EXTRACTION = threading.Lock()
"""Held while the model runs: threads of one worker share it."""


@in_standard_modes
def extract_batch(
    task: tuple[Any, bool], shared: tuple[FeatureSource, Any]
) -> tuple[int, Tensor | None, str, _Extracted | None]:
    """Return rows, labels, digest and, if wanted, the features of a batch; runs on a worker."""
    (batch, wanted), (source, dataset) = task, shared
    if dataset is not None:
        examples, collate = dataset
        several = isinstance(batch, list)
        batch = collate([examples[index] for index in batch] if several else examples[batch])
    read = LoaderBatch(0, *read_batch(source.space.model, batch))
    extracted = None
    digest = read.digest()
    if wanted and read.rows:
        with _EXTRACTION:
            features, num_classes = source.extract(read)
            extracted = _Extracted(to_array(features.cpu()), num_classes, source.info())
    return read.rows, read.labels, digest, extracted
