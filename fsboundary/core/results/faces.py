"""The faces of a decision region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionFaces(Result):
    """A decision region as F half-spaces ``normal . z + offset >= 0``, as few as were proved.

    Attributes
    ----------
    normals : Tensor (F, d), float64
        ``w_i - w_k`` for a class k; plus or minus a unit vector for a limit of the domain.
    offsets : Tensor (F,), float64
    classes : Tensor (F,)
        The class on the other side; -1 for a limit of the domain.
    coordinates : Tensor (F,)
        The feature that the domain limits; -1 for a class.
    witnesses : Tensor (F, d), float64
        A point that breaks this half-space alone, which proves that it is needed; NaN where none
        was found.
    status : Tensor (F,)
        CONVERGED where the half-space is needed, UNDECIDED where that was not decided.
    source : int
        The class of the region.
    region : Status
        CONVERGED where the region has an interior; INFEASIBLE, with F = 0, where it has none;
        UNDECIDED, with all half-spaces, where rounding hides it.
    redundant_classes : tuple of int
        Classes whose half-space follows from the others.
    redundant_limits : tuple of int
        Features with a limit of the domain that follows from the others; twice where both do.
    """

    normals: Float64[Tensor, "F d"]
    offsets: Float64[Tensor, " F"]
    classes: Int[Tensor, " F"]
    coordinates: Int[Tensor, " F"]
    witnesses: Float64[Tensor, "F d"]
    status: Int[Tensor, " F"]
    source: int
    region: Status
    redundant_classes: tuple[int, ...]
    redundant_limits: tuple[int, ...]
