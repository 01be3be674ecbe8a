"""How far the hulls of classes are from each other, and where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullSeparation(Result):
    """The nearest points of the hulls of two classes, for P pairs (i, j), with certificates.

    Entry 0 along an axis of size 2 is about class i, entry 1 about class j. Where a pair is not
    ``ok``, points, distance and gap are NaN; ``lower_bound`` holds all the same.

    Attributes
    ----------
    classes : Tensor (P, 2)
        The pair.
    points : Tensor (P, 2, d), float64
        The nearest points of the two hulls.
    distance, lower_bound, gap : Tensor (P,), float64
        Upper and lower bound of the distance between the hulls and their difference. Feature
        units.
    intersect : Tensor (P,)
        1 the hulls meet: they are no farther apart than the absolute tolerance, 1e-9 of the RMS
        norm of the differences between the classes about their mean. -1 apart: ``lower_bound``
        is above it. 0 undecided.
    common_point : Tensor (P, d), float64
        Within the tolerance of both hulls; NaN unless they meet.
    support : Tensor (P, 2, S)
        Rows of the bank that carry weight on each side, -1 as padding.
    weights : Tensor (P, 2, S), float64
        On the simplex of each side, 0 as padding.
    normal : Tensor (P, d), float64
        Unit normal of the separating hyperplanes, from i to j; NaN unless apart.
    offset : Tensor (P, 2), float64
        ``normal . v``, also as computed in float64, is at most the first for every row v of class
        i and at least the second for every row of class j; NaN unless apart. Where the classes lie
        much farther from 0 than from each other, that rounding may leave nothing between the two;
        ``lower_bound`` does not suffer from it.
    status, steps : Tensor (P,)
        :class:`fsboundary.Status` codes; rounds of the solver.
    """

    classes: Int[Tensor, "P 2"]
    points: Float64[Tensor, "P 2 d"]
    distance: Float64[Tensor, " P"]
    lower_bound: Float64[Tensor, " P"]
    gap: Float64[Tensor, " P"]
    intersect: Int[Tensor, " P"]
    common_point: Float64[Tensor, "P d"]
    support: Int[Tensor, "P 2 S"]
    weights: Float64[Tensor, "P 2 S"]
    normal: Float64[Tensor, "P d"]
    offset: Float64[Tensor, "P 2"]
    status: Int[Tensor, " P"]
    steps: Int[Tensor, " P"]
