"""Generators that are shown to be extreme by one direction in which they lie farthest out."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.hulls.certify import LOST, extent
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.geometry.lengths import TINY, lengths


def margins(
    points: PointSet, rows: Tensor, directions: Tensor, exclude: Tensor
) -> tuple[Tensor, Tensor]:
    """Return bounds (B,), (B,) of the distances of some generators from the hull of all others.

    If ``u.v`` exceeds ``u.w`` by at least m for every other generator w, and |u| = 1, then no
    point of their hull is nearer to v than m. Both products are off by at most γ R, with R the
    largest norm of a generator. The generator that comes second is itself a point of that hull.

    Parameters
    ----------
    points : PointSet
    rows : Tensor (B,)
    directions : Tensor (B, d), float64
        Of any length; where it is 0 the lower bound is 0.
    exclude : Tensor (B, E)
        The generators that hold the same point as each row, itself included, -1 as padding.

    Returns
    -------
    lower, upper : Tensor (B,), float64
        +inf where no other generator is left.
    """
    v = points.take(rows).to(torch.float64)
    unit = directions / lengths(directions).clamp_min(TINY)[:, None]
    largest = extent(points).largest
    priced = price_exact(points, -unit, largest, exclude)
    gamma = dot_error(points.num_features + 16)
    reach = largest + LOST * points.num_features**0.5
    margin = torch.linalg.vecdot(unit, v) + priced.best - 2 * gamma * (reach + TINY)
    second = points.take(priced.indices[:, 0].clamp_min(0)).to(torch.float64)
    upper = (lengths(v - second) + TINY) * (1 + gamma + 4 * EPS)
    return (
        margin.clamp_min(0.0) * (1 - gamma - 4 * EPS),
        torch.where(priced.indices[:, 0] >= 0, upper, torch.inf),
    )
