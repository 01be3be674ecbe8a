"""The affine hull of a bank: its dimension, and how far rows lie from it.

Projections on a convex hull.

How far the hulls of classes are from each other, and where they meet.

Which generators of a hull are its vertices.

Distances of training rows to the hull of the others, and other distances told against them.
"""

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
    runner_up_gap : Tensor (B,), float64
        Every other hull is farther by at least this, where it is positive; +inf where there is no
        other. Not positive where two hulls hold the row, or rounding or a solver that failed
        leaves open which is nearer. Feature units.
    classes : Tensor (B, K)
        The label of each column, ascending, in every row the same.
    distances, lower_bounds : Tensor (B, K), float64
        Upper and lower bound of the distance to the hull of each class; distances are NaN where
        there is no certified answer.
    status : Tensor (B,)
        CONVERGED where ``runner_up_gap`` is positive, NOT_FINITE, or UNDECIDED.
    """

    label: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    runner_up_gap: Float64[Tensor, " B"]
    classes: Int[Tensor, "B K"]
    distances: Float64[Tensor, "B K"]
    lower_bounds: Float64[Tensor, "B K"]
    status: Int[Tensor, " B"]


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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullVertices(Result):
    """Which of n generators are extreme, judged by their distance to the hull of all others.

    Rows that hold the same point share one answer.

    Attributes
    ----------
    extreme : Tensor (n,)
        1 a vertex: ``lower_bound`` is above the absolute tolerance, 1e-9 of the RMS norm of the
        points about their mean. -1 not a vertex: within that tolerance of the hull of all other
        points. 0 undecided.
    distance, lower_bound : Tensor (n,), float64
        Upper and lower bound of the distance to the hull of all other points, as near to each
        other as deciding took, not nearer; +inf where there is no other. Feature units.
    copy_of : Tensor (n,)
        The lowest row that holds the same point; the row itself where it is the first.
    status, steps : Tensor (n,)
        CONVERGED where decided; passes of the solver, 0 where one direction sufficed.
    """

    extreme: Int[Tensor, " n"]
    distance: Float64[Tensor, " n"]
    lower_bound: Float64[Tensor, " n"]
    copy_of: Int[Tensor, " n"]
    status: Int[Tensor, " n"]
    steps: Int[Tensor, " n"]

    @property
    def indices(self) -> Tensor:
        """Rows of this result that hold a vertex, ascending, every copy included."""
        return (self.extreme == 1).nonzero()[:, 0]

    @property
    def count(self) -> int:
        """Number of vertices found; copies of a point count once."""
        return len(self.copy_of[self.extreme == 1].unique())


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
    fraction_below : Tensor (B,), float64
        Share of the leave-one-out distances that lie below the row's lower bound: 0 no farther
        out than any training row, 1 farther out than every one.
    status : Tensor (B,)
        That of the projection.
    """

    distance: Float64[Tensor, " B"]
    ratio: Float64[Tensor, " B"]
    fraction_below: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
