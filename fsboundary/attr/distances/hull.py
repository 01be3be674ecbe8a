"""Distances to hulls of training features, for any attribution method."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from fsboundary.attr.distances.base import (
    Distance,
    bent,
    check_class,
    checked_classes,
    left_out,
    spanned,
)
from fsboundary.attr.distances.envelope import Answer
from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_fingerprints, check_labelled
from fsboundary.core.checks import check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import HullProjection
from fsboundary.core.status import OK_CODES
from fsboundary.geometry.norms import lengths
from fsboundary.hulls import hull_projection
from fsboundary.hulls.projection import HULL_RTOL
from fsboundary.space import FeatureSpace

_FAILED = "no certified distance: value and gradient are NaN; see fsboundary.hull_projection"
_UNDECIDED = "inside or outside is not decided, so the direction may be that of rounding"


class _ToHulls(Distance, ABC):
    """One column a hull."""

    def __init__(
        self, space: nn.Module | FeatureSpace, bank: FeatureBank, tolerance: float | None
    ) -> None:
        super().__init__(space)
        check_limits(tolerance, None, (HULL_RTOL, 1))
        self.bank, self.tolerance = check_bank(bank), tolerance

    def _check(self, head: LinearHead) -> None:
        if self.bank.num_features != head.num_features:
            raise ArgumentError(
                "bank",
                f"width {self.bank.num_features}",
                f"width {head.num_features}, that of the space's features",
                "make the bank with space.bank(loader)",
            )
        check_fingerprints(self.bank, self.space.fingerprint)

    def _columns(
        self, found: list[HullProjection], columns: list[int], z: Tensor, refused: Tensor
    ) -> Answer:
        """Return the answer whose `columns` are those projections of `z` (B,d)."""
        shape = (len(z), len(refused))
        value = torch.full(shape, torch.nan, dtype=torch.float64, device=z.device)
        direction = torch.full((*shape, z.shape[1]), torch.nan, dtype=z.dtype, device=z.device)
        failed, unsure = (torch.zeros(shape, dtype=torch.bool, device=z.device) for _ in "ab")
        for k, hull in zip(columns, found, strict=True):
            moved = z - hull.points
            size = torch.where(hull.distance > 0, lengths(moved), 1.0)[:, None]
            value[:, k] = hull.distance
            failed[:, k] = ~torch.isin(hull.status, torch.tensor(OK_CODES, device=z.device))
            unit = torch.where(hull.membership[:, None] == 1, 0.0, moved / size)
            direction[:, k] = torch.where(failed[:, k, None], torch.nan, unit)
            unsure[:, k] = (hull.membership == 0) & ~failed[:, k]

        def curvature(rows: Tensor, which: Tensor, vectors: Tensor) -> Tensor:
            out = torch.empty_like(vectors)
            for k, hull in zip(columns, found, strict=True):
                here = which == k
                at, v = rows[here], vectors[here]
                # no direction inside: the derivative is 0 there and so is the second
                f = torch.where(hull.membership[at] == 1, 0.0, hull.distance[at])
                normal = v - spanned(self._face(hull, at), v)
                out[here] = bent(v, normal, direction[at, k], f)
            return out

        return Answer(
            value=value,
            direction=direction,
            notes=[(failed, _FAILED), (unsure, _UNDECIDED)],
            refused=refused,
            why="the column was left out by classes=",
            curvature=curvature,
        )

    def _face(self, hull: HullProjection, rows: Tensor) -> Tensor:
        """Return edges (P,S,d) of the face that holds the nearest point, 0 as padding."""
        support = torch.where(hull.weights[rows] > 0, hull.support[rows], -1)
        corners = self.bank.take(support.clamp_min(0))
        first = hull.weights[rows].argmax(dim=1)
        edges = corners - corners[torch.arange(len(rows), device=rows.device), first][:, None]
        return torch.where((support >= 0)[..., None], edges, 0.0)


@final
class HullDistance(_ToHulls):
    """Images to the distance of their features from the hull of a bank, (B,1).

    At least 0, in feature units, certified in float64 and returned in the dtype of the features;
    0 inside, where the gradient is 0 too. Outside, the gradient is the unit direction away from the
    nearest point of the hull, pulled back through the body; on the hull's surface the subgradient
    0 is used. Rows without a certified answer are NaN, value and gradient, with a warning when the
    gradient is used. The second derivative exists outside, where the nearest point stays in one
    face, and is ``(N - u uᵀ) / distance`` in feature space, with N the projector on the directions
    normal to the face; there is no third.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
        A classifier in eval mode, or its feature space.
    bank : FeatureBank
        The generators, of the space's own features.
    tolerance : float, optional
        As for :func:`fsboundary.hull_projection`. The direction is off by at most the square root
        of twice the relative gap, and by far less where the solver ends exactly.

    Raises
    ------
    ArgumentError
        No bank, or one of another width, here or at the first batch if the head is not known yet.
    HeadMismatchError
        The bank says that it was made with another head, extractor or layer.
    """

    def __init__(
        self,
        space: nn.Module | FeatureSpace,
        bank: FeatureBank,
        *,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(space, bank, tolerance)
        self._check_early()

    def _answer(self, head: LinearHead, z: Tensor) -> Answer:
        found = hull_projection(self.bank, z, tolerance=self.tolerance)
        return self._columns([found], [0], z, left_out(None, 1, z.device))


@final
class ClassHullDistance(_ToHulls):
    """Images to the distances of their features from the hull of each class, (B,K).

    Column k is the distance to the hull of the bank's rows with label k; values, gradients and
    kinks are those of :class:`HullDistance`.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
        A classifier in eval mode, or its feature space.
    bank : FeatureBank
        With labels, of the space's own features.
    classes : sequence of int, optional
        The columns to compute; the others are NaN and cannot be a target. All if left out.
    tolerance : float, optional
        As for :class:`HullDistance`.

    Raises
    ------
    ArgumentError
        As for :class:`HullDistance`; a bank without labels; labels or classes that the head does
        not have; or a class without a row in the bank that `classes` does not leave out.
    HeadMismatchError
        The bank says that it was made with another head, extractor or layer.
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
        self._present = set(check_labelled(bank).unique().tolist())
        self.classes = checked_classes(classes)
        self._check_early()

    def _check(self, head: LinearHead) -> None:
        super()._check(head)
        count = head.num_classes
        for k in self._present:
            check_class("labels", k, count)
        for k in self.classes or ():
            check_class("classes", k, count)
        asked = range(count) if self.classes is None else self.classes
        missing = [k for k in asked if k not in self._present]
        if missing:
            raise ArgumentError(
                "classes",
                f"classes {missing}, of which the bank has no row",
                "classes that the bank holds",
                f"pass classes={[k for k in asked if k in self._present]}",
            )

    def _answer(self, head: LinearHead, z: Tensor) -> Answer:
        columns = sorted(self._present) if self.classes is None else self.classes
        found = []
        for k in columns:
            labels = torch.full((len(z),), k, dtype=torch.int64, device=z.device)
            found.append(hull_projection(self.bank, z, labels=labels, tolerance=self.tolerance))
        return self._columns(found, columns, z, left_out(columns, head.num_classes, z.device))
