"""Distances of training rows to the hull of the others, and other distances told against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeaveOneOutDistances(Result):
    """How far B rows of a bank lie from the hull of the others: the measure of other distances.

    Attributes
    ----------
    rows : Tensor (B,)
        Of the bank.
    distance, lower_bound, gap : Tensor (B,), float64
        Upper and lower bound of the distance to the hull of the other rows, copies of the row left
        out with it, and their difference. Feature units. +inf, and a gap of 0, where no other
        point is left; NaN where there is no certified answer, except ``lower_bound``.
    membership : Tensor (B,)
        1 inside the hull of the others, -1 outside, 0 undecided.
    status, steps : Tensor (B,)
        CONVERGED; INFEASIBLE where no other point is left; or why there is no certified answer.
        Rounds of the solver.
    """

    rows: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    membership: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extrapolation(Result):
    """How far B rows lie outside a hull, told against the training set's own distances.

    Attributes
    ----------
    distance : Tensor (B,), float64
        Extrapolation distance: to the hull, 0 inside. Feature units; NaN where there is no
        certified answer.
    ratio : Tensor (B,), float64
        Distance over the mean leave-one-out distance; +inf where all of these are 0.
    share : Tensor (B,), float64
        Share of the leave-one-out distances that lie below the row's lower bound: 0 no farther
        out than any training row, 1 farther out than every one.
    status : Tensor (B,)
        That of the projection.
    """

    distance: Float64[Tensor, " B"]
    ratio: Float64[Tensor, " B"]
    share: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
