"""Distances to hulls of training features, for any attribution method."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.attr.distances.base import (
    Distance,
    distance_hvp,
    distinct_classes,
    excluded_classes,
    project_on_span,
)
from fsboundary.attr.distances.distance_function import DistanceResult
from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.banks.checks import check_classes, labelled_classes, labels_of
from fsboundary.core.checks import check_integer, check_limits
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import HullProjection
from fsboundary.core.status import OK_CODES
from fsboundary.geometry.norms import lengths
from fsboundary.hulls import hull_projection
from fsboundary.hulls.projection import HULL_RTOL
from fsboundary.space import FeatureSpace

_FAILED = "no certified distance: value and gradient are NaN; see fsboundary.hull_projection"
_UNDECIDED = "inside or outside is undecided, so the direction may be rounding error"


class _HullDistances(Distance, ABC):
    """Distances to hulls, one column per hull."""

    def __init__(
        self, space: nn.Module | FeatureSpace, bank: FeatureBank, tolerance: float | None
    ) -> None:
        super().__init__(space)
        check_limits(tolerance, None, (HULL_RTOL, 1))
        self.bank, self.tolerance = check_bank(bank), tolerance

    def _arguments(self) -> tuple[Any, ...]:
        return (self.bank,)

    def _check(self, head: LinearHead) -> None:
        check_bank(self.bank, head.num_features, self.space.fingerprint)

    def _collect(
        self, projections: list[HullProjection], columns: Sequence[int], z: Tensor, excluded: Tensor
    ) -> DistanceResult:
        """Return the result whose `columns` are the `projections` of `z` (B,d)."""
        shape = (len(z), len(excluded))
        value = torch.full(shape, torch.nan, dtype=torch.float64, device=z.device)
        direction = torch.empty((len(z), len(columns), z.shape[1]), dtype=z.dtype, device=z.device)
        failed = torch.zeros(shape, dtype=torch.bool, device=z.device)
        undecided = torch.zeros(shape, dtype=torch.bool, device=z.device)
        for position, (k, hull) in enumerate(zip(columns, projections, strict=True)):
            difference = z - hull.points
            size = torch.where(hull.distance > 0, lengths(difference), 1.0)[:, None]
            value[:, k] = hull.distance
            failed[:, k] = ~torch.isin(hull.status, torch.tensor(OK_CODES, device=z.device))
            unit = torch.where(hull.membership[:, None] == 1, 0.0, difference / size)
            direction[:, position] = torch.where(failed[:, k, None], torch.nan, unit)
            undecided[:, k] = (hull.membership == 0) & ~failed[:, k]

        def curvature(rows: Tensor, positions: Tensor, vectors: Tensor) -> Tensor:
            out = torch.empty_like(vectors)
            for position, hull in enumerate(projections):
                selected = positions == position
                at, v = rows[selected], vectors[selected]
                # inside the hull, both derivatives are 0
                f = torch.where(hull.membership[at] == 1, 0.0, hull.distance[at])
                normal = v - project_on_span(self._face_edges(hull, at), v)
                out[selected] = distance_hvp(v, normal, direction[at, position], f)
            return out

        return DistanceResult(
            value=value,
            columns=torch.tensor(columns, device=z.device),
            directions=lambda rows, positions: direction[rows, positions],
            notes=[(failed, _FAILED), (undecided, _UNDECIDED)],
            excluded=excluded,
            reason="the column was left out by classes=",
            curvature=curvature,
        )

    def _face_edges(self, hull: HullProjection, rows: Tensor) -> Tensor:
        """Return edges (P,S,d) of the face that contains the nearest point, 0 as padding."""
        support = torch.where(hull.weights[rows] > 0, hull.support[rows], -1)
        corners = self.bank.take(support.clamp_min(0))
        first = hull.weights[rows].argmax(dim=1)
        edges = corners - corners[torch.arange(len(rows), device=rows.device), first][:, None]
        return torch.where((support >= 0)[..., None], edges, 0.0)


@final
class HullDistance(_HullDistances):
    """Distance from the features of examples to the hull of a bank, (B,1).

    The distance is at least 0, in feature units, certified in float64 and returned in the dtype of
    the features. Inside the hull, distance and gradient are 0. Outside, the gradient is the unit
    direction away from the nearest point of the hull, propagated back through the body; on the
    hull's surface the subgradient 0 is used. Rows without a certified result are NaN, value and
    gradient, with a warning when the gradient is used. The second derivative exists outside, where
    the nearest point stays in one face, and is ``(N - u uᵀ) / distance`` in feature space, with N
    the projector on the directions normal to the face; third derivatives are not available.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
        A classifier in eval mode, or its feature space.
    bank : FeatureBank
        Generators: features of the same space.
    tolerance : float, optional
        Tolerance of the certificate, as for :func:`fsboundary.hull_projection`. The error of the
        direction is at most the square root of twice the relative gap, and far smaller if the
        solver ends exactly.

    Raises
    ------
    ArgumentError
        `bank` is not a FeatureBank, or its width differs from the head's (raised at the first
        batch if the head is not known yet).
    HeadMismatchError
        The bank was made with another head, extractor or layer.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> bank = fsb.FeatureBank(space.extract(demo.train_images[:50]).features)
    >>> fsb.attr.HullDistance(space, bank)(images).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        space: nn.Module | FeatureSpace,
        bank: FeatureBank,
        *,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(space, bank, tolerance)
        self._use_known_head()

    def _compute(self, head: LinearHead, z: Tensor) -> DistanceResult:
        projection = hull_projection(self.bank, z, tolerance=self.tolerance)
        return self._collect([projection], [0], z, excluded_classes(None, 1, z.device))


@final
class ClassHullDistance(_HullDistances):
    """Distances from the features of examples to the hull of each class, (B,K).

    Column k is the distance to the hull of the bank's rows with label k; values, gradients and
    kinks are those of :class:`HullDistance`.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
        A classifier in eval mode, or its feature space.
    bank : FeatureBank
        Features of the same space, with labels.
    classes : sequence of int, optional
        Columns to compute; the others are NaN and cannot be a target. Default: all.
    tolerance : float, optional
        Tolerance of the certificate, as for :class:`HullDistance`.

    Raises
    ------
    ArgumentError
        As for :class:`HullDistance`; a bank without labels; labels or classes that the head does
        not have; or a class without a row in the bank that `classes` does not exclude.
    HeadMismatchError
        The bank was made with another head, extractor or layer.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> features = space.extract(demo.train_images[:50]).features
    >>> bank = fsb.FeatureBank(features, demo.train_labels[:50])
    >>> fsb.attr.ClassHullDistance(space, bank)(images).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        space: nn.Module | FeatureSpace,
        bank: FeatureBank,
        classes: Sequence[int] | Tensor | None = None,
        *,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(space, bank, tolerance)
        labels_of(bank)
        self.classes = distinct_classes(classes)
        self._use_known_head()

    def _arguments(self) -> tuple[Any, ...]:
        return self.bank, tuple(self.classes or ())

    def _check(self, head: LinearHead) -> None:
        super()._check(head)
        self._present = set(labelled_classes(self.bank))
        count = head.num_classes
        for k in self._present:
            check_integer("labels", k, 0, count - 1, fix="count classes from 0")
        for k in self.classes or ():
            check_integer("classes", k, 0, count - 1, fix="count classes from 0")
        columns = list(range(count)) if self.classes is None else self.classes
        check_classes("classes", columns, torch.tensor(sorted(self._present)))

    def _compute(self, head: LinearHead, z: Tensor) -> DistanceResult:
        columns = sorted(self._present) if self.classes is None else self.classes
        projections = []
        for k in columns:
            labels = torch.full((len(z),), k, dtype=torch.int64, device=z.device)
            projection = hull_projection(self.bank, z, labels=labels, tolerance=self.tolerance)
            projections.append(projection)
        excluded = excluded_classes(columns, head.num_classes, z.device)
        return self._collect(projections, columns, z, excluded)
