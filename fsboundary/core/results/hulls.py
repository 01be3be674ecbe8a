"""Projections on a convex hull."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullProjection(Result):
    """The nearest points of a hull to B rows, with certificates (design.md, section 1).

    Attributes
    ----------
    points : Tensor (B, d), float64
        Nearest points of the hull.
    distance, lower_bound, gap : Tensor (B,), float64
        Upper and lower bound of the distance to the hull and their difference. Feature units.
    support : Tensor (B, S)
        Generators that carry weight, -1 as padding.
    weights : Tensor (B, S), float64
        On the simplex, 0 as padding.
    normal : Tensor (B, d), float64
        Unit normal of the supporting hyperplane, NaN unless outside.
    offset : Tensor (B,), float64
        ``normal . v <= offset`` for every generator v, NaN unless outside.
    membership : Tensor (B,)
        1 inside, -1 outside, 0 undecided.
    status, steps : Tensor (B,)
        :class:`fsboundary.Status` codes; rounds of the solver.
    """

    points: Float64[Tensor, "B d"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    support: Int[Tensor, "B S"]
    weights: Float64[Tensor, "B S"]
    normal: Float64[Tensor, "B d"]
    offset: Float64[Tensor, " B"]
    membership: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearestHulls(Result):
    """The class whose hull is nearest to each of B rows, among the K classes of a bank.

    Attributes
    ----------
    label : Tensor (B,)
        The class with the smallest distance, the lowest of those whose hulls hold the row; -1 where
        no class has a certified distance.
    distance, lower_bound : Tensor (B,), float64
        Upper and lower bound of the distance to its hull. Feature units.
    margin : Tensor (B,), float64
        Every other hull is farther by at least this, where it is positive; +inf where there is no
        other. Not positive where two hulls hold the row, or rounding or a solver that failed
        leaves open which is nearer. Feature units.
    classes : Tensor (B, K)
        The label of each column, ascending, in every row the same.
    distances, lower_bounds : Tensor (B, K), float64
        Upper and lower bound of the distance to the hull of each class; distances are NaN where
        there is no certified answer.
    status : Tensor (B,)
        CONVERGED where ``margin`` is positive, NOT_FINITE, or UNDECIDED.
    """

    label: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    margin: Float64[Tensor, " B"]
    classes: Int[Tensor, "B K"]
    distances: Float64[Tensor, "B K"]
    lower_bounds: Float64[Tensor, "B K"]
    status: Int[Tensor, " B"]
