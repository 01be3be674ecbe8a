"""The affine hull of a bank: its dimension, and how far rows lie from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffineRank(Result):
    """How many dimensions the points of a bank span, for a stated tolerance.

    Attributes
    ----------
    rank : Tensor ()
        Number of singular values of the points less their mean that are above the tolerance times
        the norm of all of them.
    singular_values : Tensor (d,), float64
        Of the points less their mean, descending. Feature units.
    kept : Tensor (), float64
        Lower bound of the last singular value that counts; +inf where none does. Where it is
        above 0, the points span at least `rank` dimensions.
    rest : Tensor (), float64
        Upper bound of the first singular value that does not count; 0 where there is none.
    thickness : Tensor (), float64
        No point is farther from the flat that the first `rank` directions span. Feature units.
    status : Tensor ()
        CONVERGED where the bounds prove the rank, UNDECIDED where a singular value is within
        rounding of the tolerance.
    """

    rank: Int[Tensor, ""]
    singular_values: Float64[Tensor, " d"]
    kept: Float64[Tensor, ""]
    rest: Float64[Tensor, ""]
    thickness: Float64[Tensor, ""]
    status: Int[Tensor, ""]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffineResiduals(Result):
    """How far B rows lie from the flat that the points of a bank span.

    Attributes
    ----------
    residual : Tensor (B,), float64
        Distance to the flat; NaN where the row failed. Feature units.
    lower_bound : Tensor (B,), float64
        No point of the hull of the bank is nearer than this: the residual less the thickness of
        the bank and less rounding.
    status : Tensor (B,)
        CONVERGED; NOT_FINITE; INACCURATE where numbers overflow.
    """

    residual: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
