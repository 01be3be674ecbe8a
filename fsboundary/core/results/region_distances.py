"""Signed distances to decision regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionDistances(Result):
    """Signed distances of B rows to all K decision regions in the domain, with certificates.

    Entries that are not ``ok`` are NaN, except ``lower_bound``, which always holds.

    Attributes
    ----------
    distance : Tensor (B, K), float64
        Column k: minus the distance to region k; at the row's own class, plus the distance to
        the nearest other region, which is that to the nearest flip point. Feature units; -inf
        where the region is empty, +inf at the row's own class where all others are.
    lower_bound : Tensor (B, K), float64
        The absolute value of the true distance is no smaller, at any status.
    gap : Tensor (B, K), float64
        The absolute value of ``distance`` less ``lower_bound``; 0 where both are infinite.
    violation : Tensor (B, K), float64
        How far the nearest point found is from meeting the constraints of the region.
    gradient : Tensor (B, K, d), float64
        Of ``distance`` with respect to the row: the unit direction from the row to the nearest
        point of the region, at the row's own class from the nearest point to the row. 0 where the
        distance is 0, which is a kink, or not finite, NaN where the entry failed.
    source : Tensor (B,)
        Predicted class of the row, the only column that is not negative or 0; -1 where the row is
        not finite.
    status : Tensor (B, K)
        CONVERGED; INFEASIBLE where the region is empty; UNBOUNDED at the row's own class where no
        other can be reached; or why there is no certified answer.
    """

    distance: Float64[Tensor, "B K"]
    lower_bound: Float64[Tensor, "B K"]
    gap: Float64[Tensor, "B K"]
    violation: Float64[Tensor, "B K"]
    gradient: Float64[Tensor, "B K d"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, "B K"]
