"""The bank of a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from fsboundary.banks import FeatureBank
from fsboundary.banks.memory import MemoryStore
from fsboundary.space.loader import Drawn, Source, batches, check_loader, refuse_shuffling


def build(
    source: Source, loader: Iterable[Any], path: str | PathLike[str] | None, show_progress: bool
) -> FeatureBank:
    """Return the bank of a loader; see :meth:`fsboundary.FeatureSpace.bank`."""
    check_loader(loader)
    if path is None:
        return _in_memory(source, batches(loader, show_progress))
    refuse_shuffling(loader)
    from fsboundary.space.streaming import stream  # here: banks in memory need no Zarr

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
