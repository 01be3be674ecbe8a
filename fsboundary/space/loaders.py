"""Loaders: their batches, and the features of these."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fsboundary.banks import BankInfo
from fsboundary.banks.streams import list_rows, round_features, stored_dtype
from fsboundary.core.checks import check_labels, describe
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import finite_rows
from fsboundary.models.inputs import model_arguments
from fsboundary.models.structures import arrays_as_tensors, leaves_of, map_leaves
from fsboundary.progress import tqdm

if TYPE_CHECKING:
    from fsboundary.space.feature_space import FeatureSpace

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True, slots=True, eq=False)
class Batch(ABC):
    """A batch of examples.

    Attributes
    ----------
    start : int
        Number of rows before the batch.
    inputs : object
        Inputs of the model, as for :meth:`fsboundary.FeatureSpace.extract`, or what stands for
        them.
    rows : int
        Number of examples m.
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

    @abstractmethod
    def digest(self) -> str:
        """Return the SHA-256 of inputs and labels, with their structure, shapes and dtypes."""


_Batch = TypeVar("_Batch", bound=Batch)


@final
@dataclass(frozen=True, slots=True, eq=False)
class LoaderBatch(Batch):
    """A batch from the loader, with the inputs of the model."""

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
    batches = (
        LoaderBatch(0, *read_batch(model, batch))
        for batch in tqdm(loader, unit="batch", disable=not show_progress)
    )
    return in_order(batches)


def read_batch(model: nn.Module, batch: object) -> tuple[Any, int, Tensor | None]:
    """Return the inputs of one batch, their number of rows, and the labels (m,) or None."""
    inputs, labels = split_batch(batch)
    rows = model_arguments(model, inputs).rows
    return inputs, rows, None if labels is None or rows == 0 else check_labels(labels, rows).cpu()


def in_order(batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """Yield the batches that have rows, with their first rows.

    Raises
    ------
    ArgumentError
        No batch has rows, or only some have labels.
    """
    start, labelled = 0, False
    for batch in batches:
        if batch.rows == 0:
            continue
        if start and labelled != (batch.labels is not None):
            wanted = "labels with every batch, or with none"
            fix = "let the loader yield (inputs, labels) throughout"
            raise ArgumentError("loader", f"a change at row {start}", wanted, fix)
        labelled = batch.labels is not None
        yield replace(batch, start=start)
        start += batch.rows
    if start == 0:
        fix = "pass a DataLoader or a list; an iterator yields its batches only once"
        raise ArgumentError("loader", "no examples", "at least one batch", fix)


BATCH = 256
"""Number of examples per batch of a dataset that is passed without a loader."""


def as_loader(name: str, data: object, wanted: str, fix: str) -> Iterable[Any]:
    """Return a loader, a list of batches or a map-style dataset as an iterable of batches."""
    if isinstance(data, Dataset) and not isinstance(data, Iterable):
        return DataLoader(data, batch_size=BATCH)
    if not isinstance(data, Iterable) or isinstance(data, Tensor):
        raise ArgumentError(name, describe(data), wanted, fix)
    return data


def extract_all(
    space: FeatureSpace, data: DataLoader[Any] | Dataset[Any], batch_size: int, show_progress: bool
) -> FeatureBatch:
    """Return the features of all examples of a loader or dataset, in its order."""
    loader = DataLoader(data, batch_size=batch_size) if isinstance(data, Dataset) else data
    parts = [
        space.extract(batch.inputs, batch_size=batch_size).to_dict()
        for batch in loader_batches(space.model, loader, show_progress)
    ]
    names = [name for name, value in parts[0].items() if isinstance(value, Tensor)]
    fields = {name: torch.cat([part[name] for part in parts]) for name in names}
    return FeatureBatch(**parts[0] | fields)


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
    """Return inputs and labels (or None) of one batch, with tensors instead of arrays."""
    batch = arrays_as_tensors(batch)
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

    def extract(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the features (m,d) of a batch, and the number of classes.

        They are extracted in one batch, because the same inputs give the same bits only within the
        same batch.
        """
        found = self.space.extract(batch.inputs, batch_size=batch.rows)
        return found.features, found.logits.shape[1]

    def features(self, batch: Batch) -> Tensor:
        """Return the features (m,d) of a batch, in the dtype in which they are stored.

        Raises
        ------
        ArgumentError
            Labels that are no classes of the model.
        DataError
            Features are NaN or infinite, or beyond the range of the dtype; the message lists the
            rows.
        """
        return self.check(batch, *self.extract(batch))

    def check(self, batch: Batch, features: Tensor, num_classes: int) -> Tensor:
        """Return extracted features as they are stored, or raise as :meth:`features`."""
        if batch.labels is not None:
            check_labels(batch.labels, len(features), num_classes=num_classes)
        bad = (~finite_rows(features)).nonzero()[:, 0] + batch.start
        if len(bad):
            raise DataError(
                f"loader: NaN or infinite features of {len(bad)} examples, at rows "
                f"{list_rows(bad)} (counted from 0). Leave these out or fix them, and call again: "
                "on disk, whole chunks before them are kept"
            )
        stored = stored_dtype(features.dtype, self.dtype)
        # finite, as was checked, unless they are rounded
        return (
            features if features.dtype == stored else round_features(features, stored, batch.start)
        )
