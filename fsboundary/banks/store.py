"""What a bank asks of the place where its rows are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from fsboundary.banks import measures, pricing
from fsboundary.banks.info import BankInfo
from fsboundary.core.protocols import Moments


class Store(ABC):
    """n rows of width d with ids and perhaps labels; never changed once made.

    Rows are finite, float32 or float64. Arguments were checked by the bank. Questions about all
    rows are answered from one chunk after the other, unless a store has a better way.
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

    def price(self, directions: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products of each direction, and their rows: `pricing.price`."""
        return pricing.price(self, directions, k, exclude)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest of each coordinate, (d,) and (d,), in float64."""
        return measures.range_of(self)

    def moments(self) -> Moments:
        """Return count, mean, squares about the mean and largest norm."""
        return measures.moments_of(self)

    def digests(self) -> Tensor:
        """Return 128 bits of each row (n,2) int64, the same for rows that hold the same point."""
        return measures.digests_of(self)
