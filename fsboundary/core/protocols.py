"""What the geometry and the plugins may ask of a set of points and of a model."""

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
        """d."""
        ...

    def __len__(self) -> int: ...

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest of ``directions @ generators.T``: values, indices (B,k)."""
        ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the generators at `indices` (any shape), (..., d)."""
        ...


@final
@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The sizes of a point set, in float64 on the CPU.

    Attributes
    ----------
    count : int
        n.
    mean : Tensor (d,)
        Of the points.
    squares : Tensor ()
        Sum of the squared distances of the points from their mean.
    largest : Tensor ()
        The largest norm of a point.
    """

    count: int
    mean: Tensor
    squares: Tensor
    largest: Tensor


@runtime_checkable
class MeasuredPointSet(PointSet, Protocol):
    """A point set that knows its own sizes; those of any other are found by taking every point."""

    def moments(self) -> Moments:
        """Return the sizes of all points together."""
        ...


@runtime_checkable
class ModelView(Protocol):
    """A classifier as image finders see it: graph kept, nothing batched."""

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B,K) of images (B,C,H,W), differentiable."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Return features (B,d) of images (B,C,H,W), differentiable."""
        ...

    @property
    def head(self) -> LinearHead:
        """The last linear map."""
        ...

    @property
    def domain(self) -> Domain:
        """What the body can produce."""
        ...
