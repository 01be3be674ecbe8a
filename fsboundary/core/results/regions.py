"""Results on decision regions: guaranteed sets, coverage, faces and fractions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result, Table
from fsboundary.core.status import Status


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GuaranteedBoxes(Result):
    """Closed boxes around features, inside the domain, in which the class cannot change.

    Attributes
    ----------
    lower, upper : Tensor (B, d), float64
        Limits of each feature; infinite where neither a class nor the domain limits it, NaN where
        the row failed.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    status : Tensor (B,)
        CONVERGED; UNBOUNDED where the box is the whole domain; UNDECIDED where rounding hides the
        margin of the row itself; INACCURATE where no proposed box passed the check; or the reason
        why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> boxes = fsb.guaranteed_boxes(head, z)
    >>> inside = torch.tensor([[2.5, 1.5, -9.0]])
    >>> bool(((inside >= boxes.lower) & (inside <= boxes.upper)).all()), boxes.source.tolist()
    (True, [0])
    >>> head.predict(inside).tolist()
    [0]
    """

    lower: Float64[Tensor, "B d"]
    upper: Float64[Tensor, "B d"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Coverage(Result):
    """Membership of rows, such as test examples, in guaranteed sets of training features.

    Attributes
    ----------
    hull : Tensor (B,)
        Class whose guaranteed hull contains the row; -1 for none.
    ball : Tensor (B,)
        Row of the bank whose guaranteed ball contains the row; -1 for none.
    predicted : Tensor (B,)
        Class predicted by the head in float64; -1 where the row is not finite.
    labels : Tensor (B,)
        True classes; -1 where none were given.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides whether the hull contains the row; or the reason
        why the row failed, which counts as not covered.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> rows = fsb.coverage(head, bank, z)
    >>> (rows.hull >= 0).tolist(), rows.predicted.tolist()
    ([True, False], [0, 0])
    """

    hull: Int[Tensor, " B"]
    ball: Int[Tensor, " B"]
    predicted: Int[Tensor, " B"]
    labels: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CoverageFractions(Table):
    """Fractions of covered rows, and the accuracy among covered and uncovered rows.

    Attributes
    ----------
    kinds : tuple of str
        Meaning of the entries of each tensor: "hull", "ball", "both", "either".
    covered : Tensor (4,)
        Number of covered rows.
    fraction : Tensor (4,), float64
        Fraction of all rows that are covered.
    accuracy_covered, accuracy_uncovered : Tensor (4,), float64
        Fraction of predictions that equal the true label, among the covered rows with a label and
        among the others; NaN where there are none.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> fractions = fsb.coverage_fractions(fsb.coverage(head, bank, z, torch.tensor([0, 0])))
    >>> fractions.covered.tolist(), fractions.accuracy_covered.tolist()
    ([1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0])
    """

    kinds: tuple[str, ...]
    covered: Int[Tensor, " kinds"]
    fraction: Float64[Tensor, " kinds"]
    accuracy_covered: Float64[Tensor, " kinds"]
    accuracy_uncovered: Float64[Tensor, " kinds"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RegionFaces(Result):
    """A decision region as F half-spaces ``normal @ z + offset >= 0``, as few as were proved.

    Attributes
    ----------
    normals : Tensor (F, d), float64
        Normals: ``w_i - w_k`` for a class k, plus or minus a unit vector for a limit of the domain.
    offsets : Tensor (F,), float64
        Offsets of the half-spaces.
    classes : Tensor (F,)
        Class on the other side; -1 for a limit of the domain.
    coordinates : Tensor (F,)
        Feature that the domain limits; -1 for a class.
    witnesses : Tensor (F, d), float64
        Point that violates only this half-space, which proves that it is needed; NaN where none was
        found.
    status : Tensor (F,)
        CONVERGED where the half-space is needed, UNDECIDED where this was not decided.
    source : int
        Class of the region.
    region : Status
        CONVERGED if the region has an interior; INFEASIBLE, with F = 0, if it has none; UNDECIDED,
        with all half-spaces, if rounding hides it.
    redundant_classes : tuple of int
        Classes whose half-space follows from the others.
    redundant_limits : tuple of int
        Features with a domain limit that follows from the others; listed twice if both limits do.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> faces = fsb.region_faces(head, 0)
    >>> faces.classes.tolist(), faces.normals.tolist()
    ([1, 2], [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
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
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CertifiedClasses(Result):
    """Rows in the guaranteed hull of their class, and the distances of the others to it.

    A row is certified if and only if it is in the domain and ``distance < clearance``.

    Attributes
    ----------
    certified : Tensor (B,)
        Certified class; -1 where no guaranteed hull contains the row.
    source : Tensor (B,)
        Predicted class, the only one whose hull can contain the row; -1 where the row is not
        finite.
    distance : Tensor (B,), float64
        Upper bound of the distance to the hull of the source, only as tight as the decision
        required; +inf where the class has no hull, NaN where the row failed. Feature units.
    lower_bound : Tensor (B,), float64
        Lower bound of the distance to the hull.
    clearance : Tensor (B,), float64
        Clearance of the source's hull; NaN where there is none.
    status : Tensor (B,)
        CONVERGED; INFEASIBLE where the source has no hull; UNDECIDED where the clearance lies
        between the two bounds; or the reason why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> found = fsb.guaranteed_hulls(head, bank).check(z)
    >>> found.certified.tolist(), found.source.tolist()
    ([0, -1], [0, 0])
    """

    certified: Int[Tensor, " B"]
    source: Int[Tensor, " B"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    clearance: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GuaranteedBalls(Result):
    """Open balls, intersected with the domain, in which the class cannot change.

    Attributes
    ----------
    centre : Tensor (B, d), float64
        Rows themselves, as centres of the balls.
    radius : Tensor (B,), float64
        Radius in feature units; +inf where no other class is reachable, NaN where the row failed.
    norm : str
        Norm of the balls, "l2" or "linf".
    source : Tensor (B,)
        Class that the ball keeps: the predicted class of the row; -1 where the row is not finite.
        Where logits agree within rounding, the row in another batch may be predicted otherwise.
    active_class : Tensor (B,)
        Class whose boundary limits the ball; -1 where none does.
    status : Tensor (B,)
        CONVERGED, UNBOUNDED (no other class reachable), or the reason why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> balls = fsb.guaranteed_balls(head, z).raise_for_status()
    >>> inside = balls.centre + 0.99 * balls.radius * torch.tensor([0.0, 1.0, 0.0])
    >>> head.predict(inside).tolist(), balls.source.tolist()
    ([0], [0])
    """

    centre: Float64[Tensor, "B d"]
    radius: Float64[Tensor, " B"]
    norm: Literal["l2", "linf"]
    source: Int[Tensor, " B"]
    active_class: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LabelBalls(Result):
    """Open balls, intersected with the domain, in which no label can change.

    Attributes
    ----------
    centre : Tensor (B, d), float64
        Rows themselves, as centres of the balls.
    radius : Tensor (B,), float64
        Radius in feature units; +inf where no label can change, NaN where the row failed.
    norm : str
        Norm of the balls, "l2" or "linf".
    predicted : Tensor (B, L), bool
        Labels that the ball keeps: those of the row; none where it is not finite. Where a logit is
        0 within rounding, the row in another batch may have another label.
    label : Tensor (B,)
        Label whose boundary limits the ball; -1 where none does.
    status : Tensor (B,)
        CONVERGED, UNBOUNDED (no label can change), or the reason why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.MultiLabelHead(torch.eye(2), None)
    >>> balls = fsb.label_balls(head, torch.tensor([[1.0, -3.0]]))
    >>> balls.radius.round(decimals=4).tolist(), balls.predicted.tolist()
    ([1.0], [[True, False]])
    """

    centre: Float64[Tensor, "B d"]
    radius: Float64[Tensor, " B"]
    norm: Literal["l2", "linf"]
    predicted: Bool[Tensor, "B L"]
    label: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RegionFractions(Table):
    """Fraction of a sample in each of K regions.

    Attributes
    ----------
    fractions : Tensor (K,), float64
        Fractions, with sum 1; NaN if no row counted. A fraction of 0 does not mean that a region is
        empty: with a probability of 5 %, none of n independent draws falls in a region as large as
        3/n.
    standard_error : Tensor (K,), float64
        Standard error sqrt(p (1 - p) / samples) for independent draws.
    samples : int
        Number of rows that counted.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> box = fsb.Domain.box(torch.zeros(3), torch.ones(3))
    >>> found = fsb.region_fractions(head, box, samples=3000)
    >>> found.samples, round(float(found.fractions.sum()), 6)
    (3000, 1.0)
    """

    fractions: Float64[Tensor, " K"]
    standard_error: Float64[Tensor, " K"]
    samples: int

    _AXES: ClassVar[tuple[str, ...]] = ("class",)
