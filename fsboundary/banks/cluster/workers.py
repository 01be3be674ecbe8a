"""Tasks that a dask worker runs on its shard: consecutive rows of a bank, as an array (c,d).

Shards are NumPy arrays because dask can size, spill and send them without a copy. A task takes the
shard, its first row in the bank, and any shared arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fsboundary.banks.disk.zarr_store import RowLocation, ZarrStore
from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.store import BankInfo, Store, to_array, to_tensor
from fsboundary.core.errors import DataError
from fsboundary.core.protocols import Moments
from fsboundary.modes import in_standard_modes

Array = npt.NDArray[Any]


def read_rows(location: RowLocation) -> Array:
    """Return the rows at `location` of a bank on disk.

    Raises
    ------
    DataError
        The worker finds no bank at the path, or another one.
    """
    advice = (
        "Give the workers a file system in which this path is the same bank as for the client, or "
        "distribute a copy in memory: FeatureBank.merge([bank])"
    )
    try:
        store = ZarrStore(Path(location.path))
    except DataError as error:
        raise DataError(f"a worker cannot open its shard: {error}. {advice}") from error
    if store.seal != location.seal:
        raise DataError(f"{location.path}: a worker finds another bank there. {advice}")
    rows = torch.from_numpy(np.asarray(location.rows, dtype=np.int64))
    return to_array(store.subset(rows).features())


def select_rows(shard: Array, indices: Array) -> Array:
    """Return the shard of a subset, the rows at `indices`."""
    return shard[indices]


def identity(shared: Any) -> Any:
    """Return an argument shared by all shards; workers pass it on to each other."""
    return shared


def count_rows(shard: Array, start: int) -> int:
    """Return the number of rows."""
    return len(shard)


@in_standard_modes
def price_rows(
    shard: Array, start: int, directions: Array, exclude: Array | None = None, *, k: int
) -> tuple[Tensor, Tensor]:
    """Return the smallest products (B,c), with c at most `k`, and their rows in the bank."""
    skip = None if exclude is None else torch.from_numpy(exclude) - start
    count = min(k, len(shard))
    values, indices = _store(shard).price(torch.from_numpy(directions), count, skip)
    return values, torch.where(indices >= 0, indices + start, -1)


def take_rows(shard: Array, start: int, rows: Array) -> Tensor:
    """Return the points at those of `rows` that this shard contains."""
    here = (rows >= start) & (rows < start + len(shard))
    return to_tensor(shard[rows[here] - start])


@in_standard_modes
def coordinate_range(shard: Array, start: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each coordinate."""
    return _store(shard).range()


@in_standard_modes
def moments(shard: Array, start: int) -> Moments:
    """Return the moments of the rows."""
    return _store(shard).moments()


@in_standard_modes
def digests(shard: Array, start: int) -> Tensor:
    """Return a digest of each row."""
    return _store(shard).digests()


def _store(shard: Array) -> Store:
    return MemoryStore(to_tensor(shard), None, torch.arange(0), BankInfo())
