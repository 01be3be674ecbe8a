"""A random sample of the rows of a training set, drawn from a stream of batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fsboundary.core.checks import check_labels
from fsboundary.core.errors import DataError
from fsboundary.space import FeatureSpace
from fsboundary.space.loaders import as_loader, loader_batches, reject_shuffling


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRows:
    """Rows that were drawn, in their order, on the CPU.

    Attributes
    ----------
    features : Tensor (n, d)
        Finite features, float32 or float64.
    given : Tensor (n,)
        Label of each row, -1 where it has none.
    predicted : Tensor (n,)
        Class that the model predicts.
    ids : Tensor (n,)
        Position of each row in the training data.
    seen, skipped : int
        Number of rows of the training data, and of those among them with NaN or infinite features,
        which are never drawn.
    """

    features: Tensor
    given: Tensor
    predicted: Tensor
    ids: Tensor
    seen: int
    skipped: int


def ordered_batches(name: str, data: object) -> Iterable[Any]:
    """Return the batches of a loader, a list of batches or a dataset, always in the same order."""
    wanted = "a dataset, a loader or a list of batches"
    loader = as_loader(name, data, wanted, "pass TensorDataset(images, labels), for example")
    reject_shuffling(loader)
    return loader


def file_names(data: object) -> list[str] | None:
    """Return the names of the files of a dataset, as ImageFolder of torchvision lists them."""
    data = getattr(data, "dataset", data) if isinstance(data, DataLoader) else data
    if isinstance(data, Subset):
        names = file_names(data.dataset)
        return None if names is None else [names[i] for i in data.indices]
    samples = getattr(data, "samples", None)
    if not isinstance(samples, list) or not all(isinstance(s, tuple) and s for s in samples):
        return None
    return [str(sample[0]) for sample in samples]


def draw_rows(
    space: FeatureSpace, loader: Iterable[Any], sample: int | None, seed: int, show_progress: bool
) -> TrainingRows:
    """Return at most `sample` rows of the loader, each with the same chance; all rows for None.

    Every row gets a random number, and those with the smallest are kept. NumPy's generator gives
    the same numbers in batches of any size, so the sample does not depend on the batches.

    Raises
    ------
    ArgumentError
        Labels that are no classes of the model.
    DataError
        No row has finite features.
    """
    generator = np.random.default_rng(seed)
    parts: list[dict[str, Tensor]] = []
    seen = skipped = held = 0
    for batch in loader_batches(space.model, loader, show_progress):
        found = space.extract(batch.inputs, batch_size=batch.rows)
        given = torch.full((batch.rows,), -1) if batch.labels is None else batch.labels
        check_labels(given, batch.rows, num_classes=space.head.num_classes)
        keys = torch.from_numpy(generator.random(batch.rows))
        fine = found.ok.cpu()
        rows, features = fine.nonzero()[:, 0], found.features.cpu()
        wide = features.dtype == torch.float64
        part = {
            "features": features if wide else features.to(torch.float32),
            "given": given,
            "predicted": found.predicted.cpu(),
            "ids": torch.arange(batch.start, batch.stop),
            "keys": keys,
        }
        parts.append({name: value[rows] for name, value in part.items()})
        held += len(rows)
        seen, skipped = batch.stop, skipped + batch.rows - len(rows)
        if sample is not None and held > 2 * sample + _BLOCK:
            parts = [_smallest(parts, sample)]
            held = sample
    kept = _smallest(parts, sample)
    if not len(kept.pop("keys")):
        raise DataError(
            f"loader: all {seen} rows have NaN or infinite features. Check the images and the model"
        )
    return TrainingRows(**kept, seen=seen, skipped=skipped)


_BLOCK = 4096
"""Number of rows that are held besides twice the sample before rows are dropped."""


def _smallest(parts: list[dict[str, Tensor]], sample: int | None) -> dict[str, Tensor]:
    """Return the rows of all parts with the `sample` smallest keys, in their order."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    first = joined["keys"].argsort(stable=True)[:sample].sort().values
    return {name: value[first] for name, value in joined.items()}
