"""How large decision regions are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64
from torch import Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionShares:
    """Which share of a sample lies in each of K regions.

    Attributes
    ----------
    shares : Tensor (K,), float64
        They sum to 1; NaN where no row counted. 0 does not say that a region is empty: of n
        independent draws none falls, with a probability of 5 %, in a region as large as 3/n.
    standard_error : Tensor (K,), float64
        sqrt(p (1 - p) / samples), of independent draws.
    samples : int
        Rows that counted.
    """

    shares: Float64[Tensor, " K"]
    standard_error: Float64[Tensor, " K"]
    samples: int
