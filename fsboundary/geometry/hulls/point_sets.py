"""Point sets: their sizes, a sealed view for solvers, arithmetic on a few of their generators."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.protocols import DifferenceSet, MeasuredPointSet, Moments, PointSet
from fsboundary.geometry.batching import chunk_rows, chunks, stream_generators
from fsboundary.geometry.norms import lengths

LOST = 2.0**-510
"""Squares below 2**-1022 vanish from a norm: numbers below 2**-511."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointSetStats:
    """RMS norm of the generators about their mean, their largest norm, their mean (d,)."""

    scale: Tensor
    largest: Tensor
    mean: Tensor

    def to(self, device: torch.device) -> PointSetStats:
        """Return the sizes on `device`."""
        scale, largest, mean = (t.to(device) for t in (self.scale, self.largest, self.mean))
        return PointSetStats(scale=scale, largest=largest, mean=mean)


_stats: weakref.WeakKeyDictionary[PointSet, PointSetStats] = weakref.WeakKeyDictionary()


def point_set_stats(points: PointSet) -> PointSetStats:
    """Return the sizes of a point set; computed once per set and kept.

    A set that implements :class:`~fsboundary.core.protocols.MeasuredPointSet` reports its own
    sizes; those of any other come from two passes over its generators. Through a view they are
    copies, because certificates depend on the ones that are kept.
    """
    if isinstance(points, PointSetView):
        own = point_set_stats(points._require_points())
        return PointSetStats(
            scale=own.scale.clone(), largest=own.largest.clone(), mean=own.mean.clone()
        )
    if points not in _stats:
        sizes = points.moments() if isinstance(points, MeasuredPointSet) else _moments(points)
        scale = (sizes.sum_of_squares / sizes.count).sqrt()
        _stats[points] = PointSetStats(scale=scale, largest=sizes.largest, mean=sizes.mean)
    return _stats[points]


def _moments(points: PointSet) -> Moments:
    n, total, largest = len(points), torch.zeros(points.num_features, dtype=torch.float64), 0.0
    for v in stream_generators(points):
        total = total.to(v.device) + v.sum(dim=0)
        largest = max(largest, float(torch.linalg.vector_norm(v, dim=1).max()))
    mean = total / n
    squares = torch.zeros_like(total)
    for v in stream_generators(points):
        squares += (v - mean).square().sum(dim=0)
    return Moments(n, mean, squares.sum(), mean.new_tensor(largest))


class PointSetView:
    """A sealed, weak view of a point set, as hull solvers get it.

    Sealed: it prices and takes generators, and everything that it returns is a copy. Weak: prepared
    states are kept as long as the point set lives, and a state that held the point set itself would
    keep it alive forever.

    Parameters
    ----------
    points : PointSet
    """

    __slots__ = ("__weakref__", "_points")

    def __init__(self, points: PointSet) -> None:
        self._points = weakref.ref(points)

    def _require_points(self) -> PointSet:
        """Return the point set, or raise ReferenceError if it was deleted."""
        points = self._points()
        if points is None:
            raise ReferenceError("the point set was deleted; keep it while its solver runs")
        return points

    @property
    def num_features(self) -> int:
        """d."""
        return self._require_points().num_features

    def __len__(self) -> int:
        return len(self._require_points())

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products of each direction, and their generators."""
        return self._require_points().price(directions, k, exclude)

    def take(self, indices: Tensor) -> Tensor:
        """Return copies of the generators at `indices`."""
        return self._require_points().take(indices)


@final
class _DifferenceSetView(PointSetView):
    """A sealed view of a set of differences, which also gives access to views of its two sides."""

    __slots__ = ()

    @property
    def sides(self) -> tuple[PointSet, PointSet]:
        """Views of the two sets whose differences are the generators."""
        points = self._require_points()
        assert isinstance(points, DifferenceSet)
        one, other = points.sides
        return view_of(one), view_of(other)


def view_of(points: PointSet) -> PointSetView:
    """Return a sealed view of `points`, with the same optional protocol for differences."""
    return (_DifferenceSetView if isinstance(points, DifferenceSet) else PointSetView)(points)


def gather_rows(
    points: PointSet, indices: Int[Tensor, "B C"]
) -> tuple[Int[Tensor, " U"], Float64[Tensor, "U d"]]:
    """Return the distinct generators among `indices` (-1 is padding), and their values."""
    rows = indices[indices >= 0].unique()
    return rows, points.take(rows).to(torch.float64)


def rowwise_dots(
    directions: Float64[Tensor, "B d"],
    rows: Int[Tensor, " U"],
    values: Float64[Tensor, "U d"],
    indices: Int[Tensor, "B C"],
) -> Float64[Tensor, "B C"]:
    """Return the products of each direction with its own `indices`; +inf for padding, -1.

    Every index is one of `rows`, whose generators are `values`.
    """
    dots = torch.full(indices.shape, torch.inf, dtype=torch.float64, device=indices.device)
    if len(rows):
        for part, generators in _pieces(rows, values, indices):
            dots[part] = (generators @ directions[part, :, None])[..., 0]
    return torch.where(indices >= 0, dots, torch.inf)


def weighted_sums(
    points: PointSet, support: Int[Tensor, "B S"], weights: Float64[Tensor, "B S"]
) -> Float64[Tensor, "B d"]:
    """Return the sums of the generators `support` (-1 is padding) with `weights`."""
    rows, values = gather_rows(points, support)
    sums = torch.zeros(
        len(support), points.num_features, dtype=torch.float64, device=weights.device
    )
    if len(rows):
        for part, generators in _pieces(rows, values, support):
            sums[part] = (weights[part, None] @ generators)[:, 0]
    return sums


def weighted_distances(
    points: PointSet,
    support: Int[Tensor, "B S"],
    weights: Float64[Tensor, "B S"],
    queries: Float64[Tensor, "B d"],
    unit: Float64[Tensor, "B 1"],
) -> Float64[Tensor, " B"]:
    """Return Σ a |v - q| over each row's own `support`, with generators multiplied by `unit`."""
    rows, values = gather_rows(points, support)
    total = torch.zeros_like(queries[:, 0])
    if len(rows):
        for part, generators in _pieces(rows, values, support):
            away = lengths(generators * unit[part, :, None] - queries[part, None])
            total[part] = torch.linalg.vecdot(weights[part], away)
    return total


def _pieces(rows: Tensor, values: Tensor, indices: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the batch and the generators (b,C,d) of each; any point for padding."""
    slot = torch.searchsorted(rows, indices.clamp_min(0)).clamp_max(len(rows) - 1)
    for part in chunks(len(indices), chunk_rows(indices.shape[1] * values.shape[1])):
        yield part, values[slot[part]]
