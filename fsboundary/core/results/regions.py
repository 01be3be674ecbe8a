"""Guaranteed boxes.

Which rows are covered by guaranteed sets of training features.

The faces of a decision region.

Rows held against guaranteed hulls.

Guaranteed balls.

How large decision regions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuaranteedBoxes(Result):
    """Closed boxes around features, inside the domain, in which the class cannot change.

    Attributes
    ----------
    lower, upper : Tensor (B, d), float64
        Limits of each feature; infinite where neither a class nor the domain sets one, NaN where
        the row failed.
    source : Tensor (B,)
        The class; -1 where the row is not finite.
    status : Tensor (B,)
        CONVERGED; UNBOUNDED where the box is the whole domain; UNDECIDED where rounding hides the
        margin of the row itself; INACCURATE where no proposed box stood the check; or why the row
        failed.
    """

    lower: Float64[Tensor, "B d"]
    upper: Float64[Tensor, "B d"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coverage(Result):
    """Rows, such as those of test images, held against guaranteed sets of training features.

    Attributes
    ----------
    hull : Tensor (B,)
        The class whose guaranteed hull holds the row; -1 for none.
    ball : Tensor (B,)
        A row of the bank whose guaranteed ball holds the row; -1 for none.
    predicted : Tensor (B,)
        The head's float64 decision; -1 where the row is not finite.
    labels : Tensor (B,)
        True classes, -1 where none were given.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides whether the hull holds the row; or why the row
        failed, which counts as not covered.
    """

    hull: Int[Tensor, " B"]
    ball: Int[Tensor, " B"]
    predicted: Int[Tensor, " B"]
    labels: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoverageFractions:
    """How much is covered, and how often the prediction is right there and elsewhere.

    Attributes
    ----------
    kinds : tuple of str
        "hull", "ball", "both", "either": what each entry of the tensors counts.
    covered : Tensor (4,)
        Covered rows.
    fraction : Tensor (4,), float64
        Of all rows.
    accuracy_covered, accuracy_uncovered : Tensor (4,), float64
        Share of predictions that equal the true label, among the covered rows with a label and
        among the others; NaN where there are none.
    """

    kinds: tuple[str, ...]
    covered: Int[Tensor, " kinds"]
    fraction: Float64[Tensor, " kinds"]
    accuracy_covered: Float64[Tensor, " kinds"]
    accuracy_uncovered: Float64[Tensor, " kinds"]


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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuaranteedBalls(Result):
    """Open balls, intersected with the domain, in which the class cannot change.

    Attributes
    ----------
    centre : Tensor (B, d), float64
        The rows themselves.
    radius : Tensor (B,), float64
        Feature units; +inf where no other class is reachable, NaN where the row failed.
    norm : str
        "l2" or "linf".
    active_class : Tensor (B,)
        The class whose boundary limits the ball; -1 where none does.
    status : Tensor (B,)
        CONVERGED, UNBOUNDED (no other class reachable), or why the row failed.
    """

    centre: Float64[Tensor, "B d"]
    radius: Float64[Tensor, " B"]
    norm: Literal["l2", "linf"]
    active_class: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionFractions:
    """Which share of a sample lies in each of K regions.

    Attributes
    ----------
    fractions : Tensor (K,), float64
        They sum to 1; NaN where no row counted. 0 does not say that a region is empty: of n
        independent draws none falls, with a probability of 5 %, in a region as large as 3/n.
    standard_error : Tensor (K,), float64
        sqrt(p (1 - p) / samples), of independent draws.
    samples : int
        Rows that counted.
    """

    fractions: Float64[Tensor, " K"]
    standard_error: Float64[Tensor, " K"]
    samples: int
