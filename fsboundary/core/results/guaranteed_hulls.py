"""Rows held against guaranteed hulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CertifiedClasses(Result):
    """Which rows lie in the guaranteed hull of their class, and how far the others are from it.

    A row is certified iff it is in the domain and ``distance < clearance``.

    Attributes
    ----------
    certified : Tensor (B,)
        The class; -1 where no guaranteed hull holds the row.
    source : Tensor (B,)
        Predicted class, the only one whose hull can hold the row; -1 where the row is not finite.
    distance : Tensor (B,), float64
        Upper bound of the distance to the hull of the source, no tighter than it takes to decide;
        +inf where the class has no hull, NaN where the row failed. Feature units.
    lower_bound : Tensor (B,), float64
        The hull lies no nearer.
    clearance : Tensor (B,), float64
        Clearance of the source's hull; NaN where there is none.
    status : Tensor (B,)
        CONVERGED; INFEASIBLE where the source has no hull; UNDECIDED where the clearance lies
        between the two bounds; or why the row failed.
    """

    certified: Int[Tensor, " B"]
    source: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    clearance: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
