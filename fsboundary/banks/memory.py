"""Bank store with all rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from fsboundary.banks.store import BankInfo, Store

_ROWS = 2**16
_NUMBERS = 2**23
"""Maximal rows and numbers of a chunk, which a caller may convert at once (64 MiB of float64)."""


@final
class MemoryStore(Store):
    """Store of rows in one tensor, which nothing else may hold.

    Parameters
    ----------
    features : Tensor (n, d)
        Rows, of a floating-point dtype.
    labels : Tensor (n,) or None
        Class of each row, int64.
    ids : Tensor (n,)
        Id of each row, int64.
    info : BankInfo
        Origin of the features.
    """

    def __init__(
        self, features: Tensor, labels: Tensor | None, ids: Tensor, info: BankInfo
    ) -> None:
        self._features, self._labels, self._ids, self.info = features, labels, ids, info
        self.num_features, self.dtype = features.shape[1], features.dtype

    def __len__(self) -> int:
        return len(self._features)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield views of the tensor, to be read only."""
        step = max(1, min(_ROWS, _NUMBERS // self.num_features))
        for start in range(0, len(self), step):
            yield start, self._features[start : start + step]

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows` as float64, on the bank's device."""
        return self._features[rows.to(self._features.device)].to(torch.float64)

    def features(self) -> Tensor:
        """Return a copy of the features."""
        return self._features.clone()

    def labels(self) -> Tensor | None:
        """Return a copy of the labels."""
        return None if self._labels is None else self._labels.clone()

    def ids(self) -> Tensor:
        """Return a copy of the ids."""
        return self._ids.clone()

    def subset(self, rows: Tensor) -> MemoryStore:
        """Return a copy of `rows`, because contiguous rows are priced several times faster."""
        labels = None if self._labels is None else self._labels[rows]
        return MemoryStore(self._features[rows], labels, self._ids[rows], self.info)
