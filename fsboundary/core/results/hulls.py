"""Results on hulls: affine rank, projections, separations, vertices, leave-one-out distances.

Extrapolation distances are reported relative to the leave-one-out distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AffineRank(Result):
    """Number of dimensions that the points of a bank span, for a given tolerance.

    Attributes
    ----------
    rank : Tensor ()
        Number of singular values of the centred points that exceed the tolerance times the norm of
        all singular values.
    singular_values : Tensor (d,), float64
        Singular values of the centred points, descending. Feature units.
    kept : Tensor (), float64
        Lower bound of the last singular value that counts; +inf where none counts. If it is
        positive, the points span at least `rank` dimensions.
    rest : Tensor (), float64
        Upper bound of the first singular value that does not count; 0 where there is none.
    thickness : Tensor (), float64
        Upper bound of the distance of every point from the affine subspace spanned by the first
        `rank` directions. Feature units.
    status : Tensor ()
        CONVERGED if the bounds prove the rank, UNDECIDED if a singular value is within rounding of
        the tolerance.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.affine_rank(bank)
    >>> int(found.rank), bool(found.kept > found.rest)
    (2, True)
    """

    rank: Int[Tensor, ""]
    singular_values: Float64[Tensor, " d"]
    kept: Float64[Tensor, ""]
    rest: Float64[Tensor, ""]
    thickness: Float64[Tensor, ""]
    status: Int[Tensor, ""]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AffineResiduals(Result):
    """Distances of B rows from the affine subspace that the points of a bank span.

    Attributes
    ----------
    residual : Tensor (B,), float64
        Distance to the affine subspace; NaN where the row failed. Feature units.
    lower_bound : Tensor (B,), float64
        Lower bound of the distance to every point of the bank's hull: the residual minus the
        thickness of the bank and minus rounding.
    status : Tensor (B,)
        CONVERGED; NOT_FINITE; INACCURATE where numbers overflow.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> line = fsb.FeatureBank(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    >>> found = fsb.affine_residuals(line, torch.tensor([[1.0, 0.0]]))
    >>> bool(found.lower_bound <= found.residual)
    True
    """

    residual: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HullProjection(Result):
    """The nearest points of a hull to B rows, with certificates (design.md, section 1).

    Attributes
    ----------
    points : Tensor (B, d), float64
        Nearest points of the hull.
    distance, lower_bound, gap : Tensor (B,), float64
        Upper and lower bound of the distance to the hull and their difference. Feature units.
    support : Tensor (B, S)
        Generators with nonzero weight, -1 as padding.
    weights : Tensor (B, S), float64
        Weights on the simplex, 0 as padding.
    normal : Tensor (B, d), float64
        Unit normal of the supporting hyperplane, NaN unless outside.
    offset : Tensor (B,), float64
        Offset such that ``normal . v <= offset`` for every generator v, NaN unless outside.
    membership : Tensor (B,)
        Position of the row: -1 outside, if ``lower_bound`` is above 0; 1 inside, if it is 0 and a
        point of the hull equals the row to within tolerance; 0 undecided.
    status, steps : Tensor (B,)
        :class:`fsboundary.Status` codes; number of solver rounds.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> hull = fsb.hull_projection(bank, torch.tensor([[3.0, -1.0]])).raise_for_status()
    >>> weights = hull.weights[0][hull.support[0] >= 0]
    >>> hull.points.round(decimals=4).tolist(), round(float(weights.sum()), 6)
    ([[2.0, 0.0]], 1.0)
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
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NearestHulls(Result):
    """The class whose hull is nearest to each of B rows, among the K classes of a bank.

    Attributes
    ----------
    label : Tensor (B,)
        Class with the smallest distance, the lowest of those whose hulls contain the row; -1 where
        no class has a certified distance.
    distance, lower_bound : Tensor (B,), float64
        Upper and lower bound of the distance to its hull. Feature units.
    runner_up_gap : Tensor (B,), float64
        Where positive, lower bound of how much farther every other hull is; +inf where there is no
        other hull. Not positive where two hulls contain the row, or where rounding or a failed
        solver leaves open which hull is nearer. Feature units.
    classes : Tensor (B, K)
        Label of each column, ascending, the same in every row.
    distances, lower_bounds : Tensor (B, K), float64
        Upper and lower bound of the distance to the hull of each class; distances are NaN where
        there is no certified answer.
    status : Tensor (B,)
        CONVERGED where ``runner_up_gap`` is positive, NOT_FINITE, or UNDECIDED.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.nearest_hulls(bank, torch.tensor([[0.5, 0.5], [6.0, 4.0]]))
    >>> found.classes.tolist(), found.runner_up_gap.round(decimals=4).tolist()
    ([[0, 1], [0, 1]], [6.364, 4.6569])
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
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HullSeparation(Result):
    """The nearest points of the hulls of two classes, for P pairs (i, j), with certificates.

    Entry 0 along an axis of size 2 belongs to class i, entry 1 to class j. Where a pair is not
    ``ok``, points, distance and gap are NaN; ``lower_bound`` is valid anyway.

    Attributes
    ----------
    classes : Tensor (P, 2)
        Classes i and j of the pair.
    points : Tensor (P, 2, d), float64
        Nearest points of the two hulls.
    distance, lower_bound, gap : Tensor (P,), float64
        Upper and lower bound of the distance between the hulls and their difference. Feature
        units.
    intersect : Tensor (P,)
        -1 if the hulls are apart: ``lower_bound`` is above 0. 1 if they meet: it is 0, and they are
        no farther apart than the absolute tolerance, 1e-9 times the RMS norm of the differences
        between the classes about their mean, or times the supports' mean distance from the two
        points, by weight, where that is less. 0 if undecided.
    common_point : Tensor (P, d), float64
        Point within the tolerance of both hulls; NaN unless they meet.
    support : Tensor (P, 2, S)
        Rows of the bank with nonzero weight on each side, -1 as padding.
    weights : Tensor (P, 2, S), float64
        Weights on the simplex of each side, 0 as padding.
    normal : Tensor (P, d), float64
        Unit normal of the separating hyperplanes, from i to j; NaN unless apart.
    offset : Tensor (P, 2), float64
        Two offsets: ``normal . v``, also as computed in float64, is at most the first for every row
        v of class i and at least the second for every row of class j; NaN unless apart. If the
        classes lie much farther from 0 than from each other, this rounding may close the interval
        between the offsets; ``lower_bound`` is not affected.
    status, steps : Tensor (P,)
        :class:`fsboundary.Status` codes; number of solver rounds.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> apart = fsb.hull_separation(bank, 0, 1).raise_for_status()
    >>> apart.intersect.tolist(), apart.points.round(decimals=4).tolist()
    ([-1], [[[1.0, 1.0], [5.0, 5.0]]])
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
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HullVertices(Result):
    """Extreme points among n generators, decided by the distance to the hull of all others.

    Rows with the same point share one answer.

    Attributes
    ----------
    extreme : Tensor (n,)
        1 for a vertex: ``lower_bound`` exceeds the absolute tolerance, 1e-9 times the RMS norm of
        the points about their mean. -1 for other points: within that tolerance of the hull of all
        other points. 0 if undecided.
    distance, lower_bound : Tensor (n,), float64
        Upper and lower bound of the distance to the hull of all other points, only as tight as the
        decision required; +inf where there is no other point. Feature units.
    copy_of : Tensor (n,)
        Lowest row with the same point; the row itself if it is the first.
    status, steps : Tensor (n,)
        CONVERGED where decided; number of solver passes, 0 where one direction sufficed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    >>> found = fsb.hull_vertices(fsb.FeatureBank(square))
    >>> found.count, found.extreme.tolist()  # -1: a mixture of the others
    (4, [1, 1, 1, 1, -1])
    """

    extreme: Int[Tensor, " n"]
    distance: Float64[Tensor, " n"]
    lower_bound: Float64[Tensor, " n"]
    copy_of: Int[Tensor, " n"]
    status: Int[Tensor, " n"]
    steps: Int[Tensor, " n"]

    @property
    def indices(self) -> Tensor:
        """Rows of this result that are vertices, ascending, including every copy."""
        return (self.extreme == 1).nonzero()[:, 0]

    @property
    def count(self) -> int:
        """Number of vertices found; copies of a point count once."""
        return len(self.copy_of[self.extreme == 1].unique())


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LeaveOneOutDistances(Result):
    """Distances of B rows of a bank to the hull of the others, a reference for other distances.

    Attributes
    ----------
    rows : Tensor (B,)
        Rows of the bank.
    distance, lower_bound, gap : Tensor (B,), float64
        Upper and lower bound of the distance to the hull of the other rows, without the row and its
        copies, and their difference. Feature units. +inf, and a gap of 0, where no other point is
        left; NaN where there is no certified answer, except ``lower_bound``.
    membership : Tensor (B,)
        Position of the row: 1 inside the hull of the others, -1 outside, 0 undecided.
    status, steps : Tensor (B,)
        CONVERGED; INFEASIBLE where no other point is left; or the reason why there is no certified
        answer. Number of solver rounds.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.leave_one_out_distances(bank, 5)
    >>> found.rows.tolist(), found.membership.tolist()  # -1: outside the hull of the others
    ([0, 1, 2, 3, 4], [-1, -1, -1, -1, -1])
    """

    rows: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    membership: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Extrapolation(Result):
    """Distances of B rows to a hull, relative to the training set's leave-one-out distances.

    Attributes
    ----------
    distance : Tensor (B,), float64
        Extrapolation distance, that is, the distance to the hull, 0 inside. Feature units; NaN
        where there is no certified answer.
    ratio : Tensor (B,), float64
        Distance divided by the mean leave-one-out distance; +inf where all of these are 0.
    fraction_below : Tensor (B,), float64
        Fraction of the leave-one-out distances that lie below the row's lower bound: 0 if the row
        is no farther out than any training row, 1 if it is farther out than every one.
    status : Tensor (B,)
        Status of the projection.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> reference = fsb.leave_one_out_distances(bank, 5)
    >>> hull = fsb.hull_projection(bank, torch.tensor([[0.5, 0.5], [3.0, -1.0]]))
    >>> fsb.extrapolation(hull, reference).fraction_below.round(decimals=4).tolist()
    [0.0, 0.4]
    """

    distance: Float64[Tensor, " B"]
    ratio: Float64[Tensor, " B"]
    fraction_below: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
