"""What a worker does with its shard: consecutive rows of a bank, as an array (c,d).

Arrays, for dask knows how large they are, keeps them on disk where memory runs short, and sends
them without a copy. Questions take the shard, its first row in the bank, and what was sent along.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.store import BankInfo, Store
from fsboundary.banks.zarr_store import Place, ZarrStore
from fsboundary.core.errors import DataError
from fsboundary.core.protocols import Moments

Array = npt.NDArray[Any]


def read(place: Place) -> Array:
    """Return the rows of a bank on disk that `place` tells of."""
    advice = (
        "Give the workers a file system in which this path is the same bank as for the client, or "
        "distribute a copy in memory: FeatureBank(bank.features, bank.labels)"
    )
    try:
        whole = ZarrStore(Path(place.path))
    except DataError as error:
        raise DataError(f"a worker cannot open its shard: {error}. {advice}") from error
    if (len(whole), whole.num_features, whole.info) != (place.count, place.width, place.info):
        raise DataError(f"{place.path}: a worker finds another bank there. {advice}")
    rows = torch.from_numpy(np.asarray(place.rows, dtype=np.int64))
    return whole.subset(rows).features().numpy()


def picked(shard: Array, places: Array) -> Array:
    """Return the shard of a subset, of the rows at `places`."""
    return shard[places]


def same(shared: Array) -> Array:
    """Return what all shards are asked with; workers pass it on to each other."""
    return shared


def counted(shard: Array, start: int) -> int:
    """Return the number of rows."""
    return len(shard)


def priced(
    shard: Array, start: int, directions: Array, exclude: Array | None = None, *, k: int
) -> tuple[Tensor, Tensor]:
    """Return the smallest products (B,c), c = `k` at most, and their rows in the bank."""
    skip = None if exclude is None else torch.from_numpy(exclude) - start
    count = min(k, len(shard))
    values, indices = _store(shard).price(torch.from_numpy(directions), count, skip)
    return values, torch.where(indices >= 0, indices + start, -1)


def taken(shard: Array, start: int, rows: Array) -> Tensor:
    """Return the points at those of `rows` that lie here."""
    here = (rows >= start) & (rows < start + len(shard))
    return torch.from_numpy(shard[rows[here] - start])


def ranged(shard: Array, start: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest of each coordinate."""
    return _store(shard).range()


def measured(shard: Array, start: int) -> Moments:
    """Return the sizes of the rows."""
    return _store(shard).moments()


def digested(shard: Array, start: int) -> Tensor:
    """Return a digest of each row."""
    return _store(shard).digests()


def _store(shard: Array) -> Store:
    return MemoryStore(torch.from_numpy(shard), None, torch.arange(0), BankInfo())
