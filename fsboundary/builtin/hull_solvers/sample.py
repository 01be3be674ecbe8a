"""A few generators, evenly taken, on which every hull projection starts."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.geometry.hulls.certify import Extent, extent

SIZE = 2048
"""Generators in the sample. On real features the projection on their hull points nearly the way
of the answer, which saves a pass over all; more cost more than they save."""

_RIDGE = 0.01
"""Added to the covariance, as a share of its mean eigenvalue: flat directions stay finite."""

_TINY = 1e-300
"""Keeps the covariance of one point invertible."""


@final
class Sample:
    """Every so-many-th generator of a point set, with its coordinates at hand.

    Attributes
    ----------
    points : PointSet
    size : Extent
    index : Tensor (m,)
        Ascending.
    values : Tensor (m, d), float64
    """

    def __init__(self, points: PointSet) -> None:
        self.points = points
        self.size: Extent = extent(points)
        count = min(len(points), SIZE)
        self.index: Tensor = torch.arange(count, device=self.size.mean.device) * (
            len(points) // count
        )
        self.values = points.take(self.index).to(torch.float64)
        unit = (self.values - self.size.mean) / self.size.scale.clamp_min(_TINY)
        spread = unit.T @ unit / count
        spread.diagonal().add_(_RIDGE * spread.diagonal().mean() + _TINY)
        self._factor = torch.linalg.cholesky(spread)

    def outward(self, queries: Tensor) -> Tensor:
        """Return directions (B,d) in which the generators near `queries` (B,d) lie farthest out.

        The inverse of the covariance, times query less mean: the gradient of the Mahalanobis
        distance, which on real features points far better to the generators that will support the
        projection than the difference itself.
        """
        away: Tensor = torch.cholesky_solve((queries - self.size.mean).T, self._factor).T
        return away
