"""Protocols of point sets and models that geometry and plugins rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead


@runtime_checkable
class PointSet(Protocol):
    """A set of n generators of width d, in memory, on disk or elsewhere."""

    @property
    def num_features(self) -> int:
        """Width d."""
        ...

    def __len__(self) -> int: ...

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return values and indices (B,k) of the `k` smallest of ``directions @ generators.T``."""
        ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the generators at `indices` (any shape), (..., d)."""
        ...


@final
@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Size statistics of a point set, in float64 on the CPU.

    Attributes
    ----------
    count : int
        Number n of points.
    mean : Tensor (d,)
        Mean of the points.
    sum_of_squares : Tensor ()
        Sum of the squared distances of the points from their mean.
    largest : Tensor ()
        Largest norm of a point.
    """

    count: int
    mean: Tensor
    sum_of_squares: Tensor
    largest: Tensor


@runtime_checkable
class MeasuredPointSet(PointSet, Protocol):
    """A point set that reports its moments; those of other sets are computed from every point."""

    def moments(self) -> Moments:
        """Return the moments of all points."""
        ...


@runtime_checkable
class DifferenceSet(PointSet, Protocol):
    """A point set whose generators are all differences ``a - b`` of points of two sets.

    Generator ``i * m + j`` is the difference of point i of the first and point j of the second
    set, which has m points.
    """

    @property
    def sides(self) -> tuple[PointSet, PointSet]:
        """The two sets."""
        ...


@runtime_checkable
class ModelView(Protocol):
    """A classifier as passed to image finders: the graph is kept and nothing is batched."""

    def logits(self, images: Tensor, /) -> Tensor:
        """Return the logits (B,K) of images (B,C,H,W); differentiable."""
        ...

    def features(self, images: Tensor, /) -> Tensor:
        """Return the features (B,d) of images (B,C,H,W); differentiable."""
        ...

    @property
    def head(self) -> LinearHead:
        """The last linear map."""
        ...

    @property
    def domain(self) -> Domain:
        """Set of features that the body can produce."""
        ...
