"""The generators of each row of a batch, as grading reads them: shared by all, or a few of its own.

A point set that all rows share may be of any size, and is priced in passes. Where every row has a
small set of its own, such as the examples of one class, all products are computed at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.protocols import DifferenceSet, PointSet
from fsboundary.geometry.hulls.exact_projection import ReadablePoints
from fsboundary.geometry.hulls.point_sets import (
    point_set_stats,
    weighted_distances,
    weighted_sums,
)
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.geometry.norms import lengths


class RowSets(ABC):
    """The generators of B rows; `rows` (b,) of a method are some of them, ascending.

    Attributes
    ----------
    scale, largest : Tensor () or (B,)
        RMS norm of the generators of a row about their mean, and their largest norm.
    differences : bool
        Whether the generators are differences of the points of two hulls.
    """

    scale: Tensor
    largest: Tensor
    differences: bool = False

    @abstractmethod
    def counts_in(self, support: Int[Tensor, "B S"]) -> Bool[Tensor, "B S"]:
        """Return which entries of `support` are generators that count in their row."""

    @abstractmethod
    def take(
        self, rows: Int[Tensor, " b"], indices: Int[Tensor, "b S"]
    ) -> Float64[Tensor, "b S d"]:
        """Return the generators `indices`, none of them padding, of `rows`."""

    @abstractmethod
    def weighted_sums(
        self, rows: Int[Tensor, " b"], support: Int[Tensor, "b S"], weights: Float64[Tensor, "b S"]
    ) -> Float64[Tensor, "b d"]:
        """Return the sums of the generators `support` (-1 is padding) with `weights`."""

    @abstractmethod
    def weighted_distances(
        self,
        rows: Int[Tensor, " b"],
        support: Int[Tensor, "b S"],
        weights: Float64[Tensor, "b S"],
        queries: Float64[Tensor, "b d"],
        unit: Float64[Tensor, "b 1"],
    ) -> Float64[Tensor, " b"]:
        """Return Σ a |v - q| over each row's `support`, with generators multiplied by `unit`."""

    @abstractmethod
    def smallest_products(
        self,
        rows: Int[Tensor, " b"],
        directions: Float64[Tensor, "b d"],
        support: Int[Tensor, "b S"],
    ) -> Float64[Tensor, " b"]:
        """Return the smallest product of each direction with a generator that counts.

        The generators `support` may tie for the smallest.
        """

    @abstractmethod
    def of_row(self, row: int) -> tuple[ReadablePoints, Int[Tensor, " E"] | None]:
        """Return the generators of one row, and those that do not count, -1 as padding."""


@final
class SharedSet(RowSets):
    """One point set for all rows.

    Parameters
    ----------
    points : PointSet
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    """

    def __init__(self, points: PointSet, exclude: Int[Tensor, "B E"] | None) -> None:
        self.points, self.exclude = points, exclude
        stats = point_set_stats(points)
        self.scale, self.largest = stats.scale, stats.largest
        self.differences = isinstance(points, DifferenceSet)

    def counts_in(self, support: Tensor) -> Tensor:
        """Return which entries of `support` (B,S) count in their row."""
        counts = (support >= 0) & (support < len(self.points))
        if self.exclude is not None:
            counts &= ~(support[:, :, None] == self.exclude[:, None, :]).any(dim=2)
        return counts

    def take(self, rows: Tensor, indices: Tensor) -> Tensor:
        """Return the generators (b,S,d) at `indices`."""
        return self.points.take(indices).to(torch.float64)

    def weighted_sums(self, rows: Tensor, support: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums (b,d)."""
        return weighted_sums(self.points, support, weights)

    def weighted_distances(
        self, rows: Tensor, support: Tensor, weights: Tensor, queries: Tensor, unit: Tensor
    ) -> Tensor:
        """Return the weighted distances (b,)."""
        return weighted_distances(self.points, support, weights, queries, unit)

    def smallest_products(self, rows: Tensor, directions: Tensor, support: Tensor) -> Tensor:
        """Return the smallest products (b,) over all generators."""
        skip = None if self.exclude is None else self.exclude[rows]
        return price_exact(self.points, directions, self.largest, skip, support).best

    def of_row(self, row: int) -> tuple[ReadablePoints, Tensor | None]:
        """Return the point set."""
        return self.points, None if self.exclude is None else self.exclude[row]


@final
class SmallSets(RowSets):
    """A small set of its own for each row: at most S generators.

    Parameters
    ----------
    values : Tensor (B, S, d), float64
        Generators; anything finite as padding.
    count : Tensor (B,)
        Number of generators of each row, which come first.
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.

    Attributes
    ----------
    counting : Tensor (B, S), bool
        The generators that count.
    """

    def __init__(
        self,
        values: Float64[Tensor, "B S d"],
        count: Int[Tensor, " B"],
        exclude: Int[Tensor, "B E"] | None,
    ) -> None:
        self._values, self._count, self._exclude = values, count, exclude
        slots = torch.arange(values.shape[1], device=values.device)
        self.counting = valid = slots < count[:, None]
        if exclude is not None:
            self.counting = valid & ~(slots[:, None] == exclude[:, None, :]).any(dim=2)
        shares = valid.to(values) / count[:, None]
        away = lengths(values - shares[:, None] @ values)
        self.scale = torch.linalg.vecdot(shares, away.square()).sqrt()
        self.largest = torch.where(valid, lengths(values), 0.0).amax(dim=1)

    def shifted(self, queries: Float64[Tensor, "B d"]) -> Float64[Tensor, "B S d"]:
        """Return the generators of each row less its query, 0 for those that do not count."""
        away = self._values - queries[:, None]
        return away.mul_(self.counting[..., None])

    def counts_in(self, support: Tensor) -> Tensor:
        """Return which entries of `support` (B,S) count in their row."""
        inside = (support >= 0) & (support < self._values.shape[1])
        return inside & self.counting.gather(1, torch.where(inside, support, 0))

    def take(self, rows: Tensor, indices: Tensor) -> Tensor:
        """Return the generators (b,S,d) at `indices`."""
        return self._values[rows[:, None], indices]

    def weighted_sums(self, rows: Tensor, support: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums (b,d)."""
        table = weights.new_zeros(len(rows), self._values.shape[1])
        used = torch.where(support >= 0, weights, 0.0)
        table.scatter_add_(1, support.clamp_min(0), used)
        return (table[:, None] @ self._of(rows))[:, 0]

    def weighted_distances(
        self, rows: Tensor, support: Tensor, weights: Tensor, queries: Tensor, unit: Tensor
    ) -> Tensor:
        """Return the weighted distances (b,)."""
        generators = self.take(rows, support.clamp_min(0))
        away = lengths(generators * unit[..., None] - queries[:, None])
        total: Tensor = torch.linalg.vecdot(weights, away)
        return total

    def smallest_products(self, rows: Tensor, directions: Tensor, support: Tensor) -> Tensor:
        """Return the smallest products (b,), all computed in float64."""
        products = (self._of(rows) @ directions[..., None])[..., 0]
        return torch.where(self.counting[rows], products, torch.inf).amin(dim=1)

    def of_row(self, row: int) -> tuple[ReadablePoints, Tensor | None]:
        """Return the generators of one row as a point set."""
        points = _FewPoints(self._values[row, : int(self._count[row])])
        return points, None if self._exclude is None else self._exclude[row]

    def _of(self, rows: Tensor) -> Tensor:
        """Return the generators (b,S,d) of `rows`, without a copy where these are all."""
        return self._values if len(rows) == len(self._values) else self._values[rows]


@final
class _FewPoints:
    """A few points in memory."""

    def __init__(self, points: Tensor) -> None:
        self._points = points

    @property
    def num_features(self) -> int:
        """d."""
        return self._points.shape[1]

    def __len__(self) -> int:
        return len(self._points)

    def take(self, indices: Tensor) -> Tensor:
        """Return copies of the points at `indices`."""
        return self._points[indices.to(self._points.device)].to(indices.device)
