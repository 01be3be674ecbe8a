"""What a bank asks of the place where its rows are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from fsboundary.banks.info import BankInfo


class Store(ABC):
    """n rows of width d with ids and perhaps labels; never changed once made.

    Rows are finite, float32 or float64. Arguments were checked by the bank.
    """

    info: BankInfo
    num_features: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, features (c,d))`` in order of rows, one chunk in memory at a time."""

    @abstractmethod
    def take(self, rows: Tensor) -> Tensor:
        """Return the features (m,d) at `rows` (m,), in float64."""

    @abstractmethod
    def features(self) -> Tensor:
        """Return all features (n,d): everything at once in memory."""

    @abstractmethod
    def labels(self) -> Tensor | None:
        """Return all labels (n,) int64, or None."""

    @abstractmethod
    def ids(self) -> Tensor:
        """Return all ids (n,) int64."""

    @abstractmethod
    def subset(self, rows: Tensor) -> Store:
        """Return the store of `rows` (m,) alone, ascending."""
