"""Distances to decision regions and boundaries, for any attribution method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.attr.distances.base import (
    Distance,
    boundary_normals,
    distance_hvp,
    distinct_classes,
    excluded_classes,
)
from fsboundary.attr.distances.distance_function import Directions, DistanceResult
from fsboundary.boundaries import region_distances, tie_points
from fsboundary.core.checks import check_integer, check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results.deferred import stored
from fsboundary.core.status import OK_CODES, Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.flips.recomputed import DeferredDirections
from fsboundary.geometry.norms import lengths
from fsboundary.space import FeatureSpace

_KINK = "distance 0, a kink: the row is on the boundary, and the subgradient 0 is used"
_NONE = "no such point exists: the distance is infinite and its gradient 0"
_FAILED = "no certified distance: value and gradient are NaN; see fsboundary.region_distances"


@final
class BoundaryDistance(Distance):
    """Signed distances from the features of examples to the decision regions, (B,K).

    Column k is the distance to region k in the domain, in feature units: positive inside, negative
    outside, continuous where the class changes. The predicted class is the non-negative column.
    The gradient of each column is a unit direction in feature space, propagated back through the
    body.

    With `source` = i, column j is instead the distance, at least 0, to the nearest point where
    logits i and j tie and no other is larger. If the example is of one of the two classes, this is
    the flip point of i and j. Column i is NaN and cannot be a target.

    Values are computed and certified in float64 and returned in the dtype of the features. The
    gradient is that of the exact distance (envelope theorem). At kinks, where the nearest point is
    not unique, it is one of several limits; at distance 0 it is 0, with a warning when it is used.
    If a target cannot be reached, the distance is infinite and the gradient 0, with a warning.
    Rows without a certified result (outside the domain, not finite) are NaN, value and gradient.
    The second derivative exists where the nearest point stays in one face, and is
    ``(N - u uᵀ) / distance`` in feature space, with N the projector on the directions normal to
    the face; third derivatives are not available.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
        A classifier in eval mode, or its feature space.
    source : int, optional
        Class whose boundaries are measured.
    classes : sequence of int, optional
        Columns to compute; the others are NaN and cannot be a target. Default: all.
    tolerance : float, optional
        Tolerance of the certificate, as for :func:`fsboundary.region_distances`.

    Raises
    ------
    ArgumentError
        Classes that the head does not have; or a class whose region is empty and that `classes`
        does not exclude (raised at the first batch if the head is not known yet).

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> from captum.attr import Saliency
    >>> distance = fsb.attr.BoundaryDistance(space)  # positive in the image's own region
    >>> predicted = space.extract(images).predicted
    >>> Saliency(distance).attribute(images.clone().requires_grad_(), target=predicted).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        space: nn.Module | FeatureSpace,
        source: int | None = None,
        classes: Sequence[int] | Tensor | None = None,
        *,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(space)
        if source is not None:
            fix = "pass one class, or leave it out for distances to regions"
            check_integer("source", source, None, fix=fix)
        check_limits(tolerance, None, (FLIP_RTOL, 1))
        self.source, self.tolerance = source, tolerance
        self.classes = distinct_classes(classes)
        if self.classes == (source,):
            fix = "add a class to reach"
            raise ArgumentError("classes", f"{[source]}, the source", "another class", fix)
        self._use_known_head()

    def _arguments(self) -> tuple[Any, ...]:
        return self.source, tuple(self.classes or ())

    def _check(self, head: LinearHead) -> None:
        count = head.num_classes
        for k in self.classes or ():
            check_integer("classes", k, 0, count - 1, fix="count classes from 0")
        if self.source is not None:
            check_integer("source", self.source, 0, count - 1, fix="count classes from 0")
        used = range(count) if self.classes is None else self.classes
        empty = empty_regions(
            head, sorted({*used, *([] if self.source is None else [self.source])})
        )
        if empty:
            nonempty = [k for k in used if k not in empty and k != self.source]
            raise ArgumentError(
                "source" if empty == [self.source] else "classes",
                f"classes {empty}, whose regions are empty: no feature has their largest logit",
                "classes that a feature can have",
                f"pass classes={nonempty}",
            )

    def _compute(self, head: LinearHead, z: Tensor) -> DistanceResult:
        excluded = excluded_classes(self.classes, head.num_classes, z.device)
        reason = "the column was left out by classes="
        if self.source is not None:
            excluded[self.source] = True
            reason = f"{self.source} is the source itself, or the column was left out by classes="
        columns = (~excluded).nonzero()[:, 0]
        if self.source is not None:
            distance, unit, status = self._flip_distances(head, z, self.source, columns)
            directions: Directions = _entries_of(unit)
        else:
            found = region_distances(
                head,
                z,
                "all" if self.classes is None else columns.repeat(len(z), 1),
                tolerance=self.tolerance,
            )
            distance, status = found.distance, found.status
            gradient = stored(found, "gradient")
            later = isinstance(gradient, DeferredDirections)
            directions = gradient.at if later else _entries_of(gradient)
        value = torch.full((len(z), head.num_classes), torch.nan, dtype=z.dtype, device=z.device)
        value[:, columns] = distance
        failed = torch.zeros_like(value, dtype=torch.bool)
        failed[:, columns] = ~torch.isin(status, torch.tensor(OK_CODES, device=z.device))
        notes = [(value == 0, _KINK), (torch.isinf(value), _NONE), (failed, _FAILED)]

        def curvature(rows: Tensor, positions: Tensor, vectors: Tensor) -> Tensor:
            unit, f = directions(rows, positions), distance[rows, positions]
            points = z[rows] - unit * torch.where(torch.isfinite(f), f, 0.0)[:, None]
            return distance_hvp(vectors, boundary_normals(head, z[rows], points, vectors), unit, f)

        return DistanceResult(
            value=value,
            columns=columns,
            directions=directions,
            notes=notes,
            excluded=excluded,
            reason=reason,
            curvature=curvature,
        )

    def _flip_distances(
        self, head: LinearHead, z: Tensor, source: int, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return distances (B,T), their directions (B,T,d) and statuses (B,T)."""
        pairs = torch.stack([torch.full_like(targets, source), targets], dim=1)
        rows = z.repeat_interleave(len(targets), dim=0)
        ties = tie_points(head, rows, pairs.repeat(len(z), 1), tolerance=self.tolerance)
        difference = rows - ties.points
        # the actual length, not ties.distance, so that the direction has length 1
        size = torch.where(ties.distance > 0, lengths(difference), 1.0)[:, None]
        unit = torch.where(torch.isinf(ties.distance)[:, None], 0.0, difference / size)
        sizes = (len(z), len(targets))
        fields = (ties.distance, unit, ties.status)
        distance, direction, status = (value.unflatten(0, sizes) for value in fields)
        return distance, direction, status


def _entries_of(table: Tensor) -> Directions:
    """Return the function from rows and positions to the entries of `table` (B,C,d)."""
    return lambda rows, positions: table[rows, positions]


_SCALES = (1.0, 30.0, 1e3)
"""Multiples of a first step from the origin at which points of regions are looked for."""

_LEAD_RTOL = 1e-9
"""Fraction of the largest logit by which the class must lead: far more than rounding."""


def empty_regions(head: LinearHead, classes: Sequence[int]) -> list[int]:
    """Return those of `classes` whose regions are empty.

    A point of a region proves that there are some. In most regions one lies in the direction of
    the class's weights; only for the others problems are solved.
    """
    weight, bias = head._weight, head._bias
    left = torch.tensor(classes, device=head.device)
    zero = head.domain.clip(torch.zeros_like(weight[:1]))
    direction = weight - weight.mean(dim=0)
    # the step at which the direction's lead makes up for the largest difference of biases
    step = (1 + bias.abs().amax()) / lengths(direction).square().clamp_min(1e-30)
    for scale in _SCALES:
        logits = head.logits(head.domain.clip(zero + scale * step[left, None] * direction[left]))
        own = logits.gather(1, left[:, None])
        others = logits.scatter(1, left[:, None], -torch.inf).amax(dim=1)
        # a lead that may be rounding proves nothing
        left = left[~(own[:, 0] - others > _LEAD_RTOL * logits.abs().amax(dim=1))]
    if len(left) == 0:
        return []  # without the distances of all pairs of weights, which the problems need
    # whether a region is empty does not depend on the row
    status = region_distances(head, zero, left[None]).status[0]
    return left[status == Status.INFEASIBLE].tolist()
