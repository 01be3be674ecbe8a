"""Results on decision boundaries: flip points, class paths, region distances and ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.results.base import Result
from fsboundary.core.results.deferred import deferrable
from fsboundary.core.results.features import FeatureBatch
from fsboundary.core.rows import TensorOrArray, from_array


@final
@deferrable("points")
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FlipPoints(Result):
    """The closest boundary points of B rows for T targets each, with certificates.

    For a non-linear head, ``lower_bound`` is 0, ``gap`` is the distance and ``violation`` is an
    estimate by linearisation; ``active`` and ``multipliers`` are empty.

    Every number can be re-checked from ``points``, ``active`` and ``multipliers`` (design.md,
    section 1). Entries that are not ``ok`` are NaN, except ``lower_bound``, which always holds.

    Attributes
    ----------
    points : Tensor (B, T, d), float64
        Flip point z', on the boundary of source and target; NaN where there is none.
    distance : Tensor (B, T), float64
        Distance ``|z' - z|`` in feature units; +inf where the target is unreachable.
    lower_bound : Tensor (B, T), float64
        Lower bound of the distance to the boundary, valid at any status. Feature units.
    gap : Tensor (B, T), float64
        Difference distance - lower_bound; 0 where both are +inf.
    violation : Tensor (B, T), float64
        Largest distance of z' from the constraints it must satisfy, plus the rounding error of this
        evaluation, so rarely exactly 0. Feature units.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    target : Tensor (B, T)
        Class to be reached.
    active : Tensor (B, T, S)
        Classes whose constraint has a multiplier, -1 as padding. The entry equal to the
        target stands for the tie ``(w_i - w_j).z' + b_i - b_j = 0``, any other entry k for the
        slack ``(w_j - w_k).z' + b_j - b_k >= 0``.
    multipliers : Tensor (B, T, S), float64
        Dual multipliers of ``active``: free for the tie, at least 0 for slacks, 0 as padding.
    status : Tensor (B, T)
        :class:`fsboundary.Status` codes.
    steps : Tensor (B, T)
        Number of Newton steps or solver iterations.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> flips = fsb.flip_points(head, z, "all").raise_for_status()
    >>> flips.target.tolist(), flips.distance.round(decimals=4).tolist()
    ([[1, 2]], [[1.4142, 2.1213]])
    >>> (flips.distance - flips.lower_bound < 1e-9).all().item()  # each is certified to be nearest
    True
    """

    points: Float64[Tensor, "B T d"]
    distance: Float64[Tensor, "B T"]
    lower_bound: Float64[Tensor, "B T"]
    gap: Float64[Tensor, "B T"]
    violation: Float64[Tensor, "B T"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, "B T"]
    active: Int[Tensor, "B T S"]
    multipliers: Float64[Tensor, "B T S"]
    status: Int[Tensor, "B T"]
    steps: Int[Tensor, "B T"]

    def angles(self, features: TensorOrArray | FeatureBatch) -> tuple[Tensor, Tensor]:
        """Return the angles between rows and flip points, and lower bounds of the smallest angle.

        Only for heads of normalised features (cosine heads, CLIP): their decision regions are
        cones, so the ray to each boundary point lies in the boundary, at a distance of
        ``|z| sin(angle)`` from the row, and the nearest point is also that of the smallest angle.

        Parameters
        ----------
        features : Tensor or array (B, d), or FeatureBatch
            The rows that the flip points belong to, of any length.

        Returns
        -------
        angle, lower_bound : Tensor (B, T), float64
            Radians, and a bound that always holds. The angle is NaN where there is no flip point,
            and where it is the apex of the cones: no boundary is then within 90 degrees.

        Raises
        ------
        ArgumentError
            Features of another shape.

        Examples
        --------
        >>> import math, torch
        >>> import fsboundary as fsb
        >>> head = fsb.LinearHead(torch.eye(2), None)
        >>> z = torch.tensor([[3.0, 0.0]])
        >>> angle, bound = fsb.flip_points(head, z).angles(z)
        >>> round(math.degrees(angle)), round(math.degrees(bound))
        (45, 45)
        """
        features = features.features if isinstance(features, FeatureBatch) else from_array(features)
        shape = (self.points.shape[0], self.points.shape[2])
        if tuple(features.shape) != shape:
            fix = "pass the features that the flip points were computed for"
            raise ArgumentError("features", f"shape {tuple(features.shape)}", f"{shape}", fix)
        z = features.detach().to(self.points)
        size = z.norm(dim=1)[:, None]
        # the angle by half-chords of unit vectors, accurate for small angles too
        one = z[:, None] / size[:, :, None]
        other = self.points / self.points.norm(dim=2, keepdim=True)
        angle = 2 * torch.atan2((one - other).norm(dim=2), (one + other).norm(dim=2))
        apex = self.points.norm(dim=2) <= 1e-9 * size  # its direction is rounding
        angle = torch.where(apex, torch.nan, angle)
        # the norm, the quotient and the arcsine are rounded by fewer than d + 16 roundoffs
        slack = 1 - (shape[1] + 16) * torch.finfo(torch.float64).eps
        bound = (self.lower_bound / size * slack).clamp(0, 1).arcsin() * slack
        # an infinite bound: nothing can be reached, at any angle
        unreachable = torch.isinf(self.lower_bound)
        return torch.where(unreachable, torch.inf, angle), torch.where(
            unreachable, torch.inf, bound
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LabelFlips(Result):
    """The closest points where the labels of B rows change, for T targets each.

    Every number can be re-checked from ``points``, ``active`` and ``multipliers``: with λ the
    multipliers by label, ``½|p - z|² - Σ λ_k (w_k.p + b_k)`` at ``p = clip(z + Σ λ_k w_k)`` is at
    most half the squared distance. Entries that are not ``ok`` are NaN, except ``lower_bound``,
    which always holds.

    Attributes
    ----------
    points : Tensor (B, T, d), float64
        Closest point z'; NaN where there is none.
    distance : Tensor (B, T), float64
        Distance ``|z' - z|`` in feature units; +inf where the target is unreachable.
    lower_bound : Tensor (B, T), float64
        Lower bound of the distance to such a point, valid at any status. Feature units.
    gap : Tensor (B, T), float64
        Difference distance - lower_bound; 0 where both are +inf.
    violation : Tensor (B, T), float64
        Largest distance of z' from the constraints it must satisfy, plus the rounding error of this
        evaluation. Feature units.
    predicted : Tensor (B, L), bool
        Labels of the row; none where it is not finite.
    label : Tensor (B, T)
        Label that changes; -1 where the target is a set of labels, or there is none.
    active : Tensor (B, T, S)
        Labels whose constraint has a multiplier, -1 as padding.
    multipliers : Tensor (B, T, S), float64
        Multipliers of the logits of ``active``: free for a label that changes; for a set, at least
        0 for labels of the set and at most 0 for others; 0 as padding.
    status : Tensor (B, T)
        :class:`fsboundary.Status` codes.
    steps : Tensor (B, T)
        Number of Newton steps.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.MultiLabelHead(torch.eye(2), None)
    >>> flips = fsb.label_flips(head, torch.tensor([[1.0, -3.0]]), "all")
    >>> flips.label.tolist(), flips.distance.round(decimals=4).tolist()
    ([[0, 1]], [[1.0, 3.0]])
    """

    points: Float64[Tensor, "B T d"]
    distance: Float64[Tensor, "B T"]
    lower_bound: Float64[Tensor, "B T"]
    gap: Float64[Tensor, "B T"]
    violation: Float64[Tensor, "B T"]
    predicted: Bool[Tensor, "B L"]
    label: Int[Tensor, "B T"]
    active: Int[Tensor, "B T S"]
    multipliers: Float64[Tensor, "B T S"]
    status: Int[Tensor, "B T"]
    steps: Int[Tensor, "B T"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ClassPath(Result):
    """Classes along B segments from t = 0 to t = 1, and the points where they change.

    Attributes
    ----------
    classes : Tensor (B, S)
        Classes in the order in which they occur, -1 as padding.
    crossings : Tensor (B, S-1), float64
        Parameter t in (0, 1) at which class s changes to class s + 1, NaN as padding.
    points : Tensor (B, S-1, d), float64
        Points at the crossings, on the boundary of the two classes, NaN as padding.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides which class has the largest logit on some part of
        the segment; INACCURATE where the path, when re-checked, missed the rounding of the logits;
        or the reason why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> path = fsb.class_path(head, z, torch.tensor([[0.0, 1.0, 3.0]])).raise_for_status()
    >>> head.logits(path.points[0]).round(decimals=4).tolist()  # two classes are equal there
    [[1.5, 1.0, 1.5]]
    """

    classes: Int[Tensor, "B S"]
    crossings: Float64[Tensor, "B S_1"]
    points: Float64[Tensor, "B S_1 d"]
    status: Int[Tensor, " B"]


@final
@deferrable("gradient")
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RegionDistances(Result):
    """Signed distances of B rows to T decision regions each, in the domain, with certificates.

    Entries that are not ``ok`` are NaN, except ``lower_bound``, which always holds.

    Attributes
    ----------
    distance : Tensor (B, T), float64
        Signed distance: minus the distance to the region of the target, except for the row's own
        class: plus the distance to the nearest other region, that is, to the nearest flip point.
        Feature units; -inf where the region is empty, +inf at the row's own class where all other
        regions are empty.
    lower_bound : Tensor (B, T), float64
        Lower bound of the absolute value of the true distance, valid at any status.
    gap : Tensor (B, T), float64
        Absolute value of ``distance`` minus ``lower_bound``; 0 where both are infinite.
    violation : Tensor (B, T), float64
        Distance by which the nearest point found misses the constraints of the region.
    gradient : Tensor (B, T, d), float64
        Gradient of ``distance`` with respect to the row: the unit direction from the row to the
        nearest point of the region or, for the row's own class, from the nearest point to the row.
        0 where the distance is 0, which is a kink, or not finite; NaN where the entry failed.
    source : Tensor (B,)
        Predicted class of the row, the only one whose distance can be positive; -1 where the row
        is not finite.
    target : Tensor (B, T)
        Class of each region; -1 where there is none. With "all", column k is class k.
    status : Tensor (B, T)
        CONVERGED; INFEASIBLE where the region is empty; UNBOUNDED at the row's own class where no
        other class can be reached; or the reason why there is no certified answer.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> distances = fsb.region_distances(head, z, "own")
    >>> distances.target.tolist(), distances.distance.round(decimals=4).tolist()
    ([[0]], [[1.4142]])
    """

    distance: Float64[Tensor, "B T"]
    lower_bound: Float64[Tensor, "B T"]
    gap: Float64[Tensor, "B T"]
    violation: Float64[Tensor, "B T"]
    gradient: Float64[Tensor, "B T d"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, "B T"]
    status: Int[Tensor, "B T"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TiePoints(Result):
    """The closest points where given classes tie and no other logit is larger, with certificates.

    Every number can be re-checked from ``points``, ``anchor``, ``active`` and ``multipliers``
    (design.md, section 1). Rows that are not ``ok`` are NaN, except ``lower_bound``, which always
    holds.

    Attributes
    ----------
    points : Tensor (B, d), float64
        Tie point z'; NaN where there is none.
    distance : Tensor (B,), float64
        Distance ``|z' - z|`` in feature units; +inf where the classes cannot tie at the top.
    lower_bound : Tensor (B,), float64
        Lower bound of the distance to such a point, valid at any status. Feature units.
    gap : Tensor (B,), float64
        Difference distance - lower_bound; 0 where both are +inf.
    violation : Tensor (B,), float64
        Largest distance of z' from the constraints it must satisfy, which compare the anchor with
        every other class, plus the rounding error of this evaluation. Feature units.
    classes : Tensor (B, M)
        Classes that tie, -1 as padding.
    anchor : Tensor (B,)
        Tied class with which the others are compared; -1 where the row failed.
    active : Tensor (B, S)
        Classes k whose constraint on ``(w_r - w_k).z' + b_r - b_k``, with r the anchor, has a
        multiplier, -1 as padding. This value is 0 for tied classes, at least 0 for the others.
    multipliers : Tensor (B, S), float64
        Dual multipliers of ``active``: free for tied classes, at least 0 for the others.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    status : Tensor (B,)
        :class:`fsboundary.Status` codes.
    steps : Tensor (B,)
        Number of Newton steps.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> ties = fsb.tie_points(head, z, torch.tensor([[0, 1, 2]])).raise_for_status()
    >>> head.logits(ties.points[0]).round(decimals=6).tolist()
    [1.333333, 1.333333, 1.333333]
    """

    points: Float64[Tensor, "B d"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    violation: Float64[Tensor, " B"]
    classes: Int[Tensor, "B M"]
    anchor: Int[Tensor, " B"]
    active: Int[Tensor, "B S"]
    multipliers: Float64[Tensor, "B S"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LargestTies(Result):
    """The largest number of top classes of a row that can tie, and the closest tie point.

    Attributes
    ----------
    count : Tensor (B,)
        Largest number of top logits found to tie; 0 where the row failed.
    points : Tensor (B, d), float64
        Closest point where they tie and no other logit is larger.
    distance, lower_bound, gap, violation : Tensor (B,), float64
        Numbers of that point, as in :class:`TiePoints`.
    classes : Tensor (B, M)
        Tied classes, the largest logit first, -1 as padding.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    status : Tensor (B,)
        CONVERGED, or the reason why the row failed.
    stopped : Tensor (B,)
        Reason why no further class was added: INFEASIBLE (the next class provably cannot tie with
        these), CONVERGED (all classes or ``max_classes`` of them tie), MAX_STEPS or INACCURATE
        (undecided, so ``count`` may be too small), or the status of a failed row.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> ties = fsb.largest_ties(head, z).raise_for_status()
    >>> ties.classes.tolist(), ties.points.round(decimals=4).tolist()
    ([[0, 1, 2]], [[1.3333, 1.3333, 1.3333]])
    """

    count: Int[Tensor, " B"]
    points: Float64[Tensor, "B d"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    violation: Float64[Tensor, " B"]
    classes: Int[Tensor, "B M"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    stopped: Int[Tensor, " B"]

    _STATUSES: ClassVar[tuple[str, ...]] = ("status", "stopped")
