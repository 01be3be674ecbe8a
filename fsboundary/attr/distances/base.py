"""Base class of the distance modules, and the second derivatives of distances.

Near a row whose nearest point lies inside a face of the set, the distance f equals the distance to
the affine hull of the face. With N the projector on the directions normal to it and u the unit
direction, the second derivative is ``(N - u uᵀ) / f``, which is 0 where a single constraint is
active at the point. It does not exist where the nearest point moves from one face to another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fsboundary.attr.distances.distance_function import (
    DistanceResult,
    GradientRecord,
    attach_gradient,
    warn_nonfinite,
    watch_gradient,
)
from fsboundary.core.checks import check_integer_tensor
from fsboundary.core.errors import HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.norms import lengths, pair_norms
from fsboundary.models.calling import run_eagerly
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of

_TIE_RTOL, _DOMAIN_RTOL = 1e-6, 1e-12
"""Relative tolerances, as fractions of the norms of row and point, within which a class ties at a
point or a face of the domain contains it. Certified points miss ties by a hundredth of the first,
and are clipped to the domain exactly."""


def distance_hvp(vectors: Tensor, normal_part: Tensor, unit: Tensor, value: Tensor) -> Tensor:
    """Return ``(N - u uᵀ) v / f``, (P,d); 0 where the value (P,) is 0 or infinite."""
    along = torch.linalg.vecdot(unit, vectors)[:, None]
    valid = torch.isfinite(value) & (value != 0)
    out = (normal_part - along * unit) / torch.where(valid, value, 1.0)[:, None]
    out = torch.where(valid[:, None], out, 0.0)
    return torch.where(torch.isnan(value)[:, None], torch.nan, out)


def boundary_normals(head: LinearHead, z: Tensor, points: Tensor, vectors: Tensor) -> Tensor:
    """Return the part of `vectors` (P,d) normal to the face of the boundary at `points` (P,d).

    On the face, the classes that tie at the point stay tied, and the domain's active bounds stay
    active.
    """
    size = (lengths(z) + lengths(points))[:, None]
    logits = head.logits(points)
    top, anchor = logits.max(dim=1, keepdim=True)
    tied = top - logits <= _TIE_RTOL * size * pair_norms(head, 2.0)[anchor[:, 0]]
    low, high = head.domain.limits(points)
    active = (points - low <= _DOMAIN_RTOL * size) | (high - points <= _DOMAIN_RTOL * size)
    normals = torch.where(tied[..., None], head._weight - head._weight[anchor], 0.0)
    free = torch.where(active, 0.0, vectors)
    projected = project_on_span(torch.where(active[:, None], 0.0, normals), free)
    return torch.where(active, vectors, projected)


def project_on_span(rows: Tensor, vectors: Tensor) -> Tensor:
    """Return the projection of `vectors` (P,d) on the span of `rows` (P,S,d)."""
    # normalise the rows, so that short ones count as much as long ones
    size = lengths(rows)[..., None]
    rows = rows / torch.where(size > 0, size, 1.0)
    inverse = torch.linalg.pinv(rows @ rows.mT, hermitian=True, rtol=1e-10)
    weights = inverse @ (rows @ vectors[..., None])
    out: Tensor = (rows.mT @ weights)[..., 0]
    return out


class Distance(nn.Module, ABC):
    """Module from inputs of B examples to distances (B,K), for attribution methods.

    The model of the space is the submodule ``model``, so that its layers can be explained and
    hooked; it is called unchanged.
    """

    def __init__(self, space: nn.Module | FeatureSpace) -> None:
        super().__init__()
        self.space = space_of(space)
        self.model = self.space.model
        # not train(), which would change the mode of the user's model
        self.training = self.model.training
        self._checked: tuple[Any, ...] = ()
        self._columns_reported = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling and copying: a copy checks its head anew."""
        return self.__dict__ | {"_checked": ()}

    @run_eagerly
    @in_standard_modes
    def forward(self, inputs: Any = None, /, *additional: Any, **keywords: Any) -> Tensor:
        """Return the distances of B examples, in the dtype of the features.

        Parameters
        ----------
        inputs, *additional, **keywords : object
            As for :meth:`fsboundary.FeatureSpace.extract`.
        """
        record = GradientRecord()
        if isinstance(inputs, Tensor) and inputs.is_floating_point() and not inputs.is_nested:
            inputs = watch_gradient(inputs, record)
        features = self.space.features(inputs, *additional, **keywords)
        head = self._checked_head().to(features.device)
        result = self._compute(head, features.detach().double())
        out = attach_gradient(features, result, record)
        if not out.requires_grad:
            # no backward pass will warn, as in perturbation methods
            warn_nonfinite(result, columns=not self._columns_reported)
            self._columns_reported = True
        return out

    def _use_known_head(self) -> None:
        """Use the head now if it is already known; else the first forward pass does."""
        try:
            self._checked_head()
        except HeadError as error:
            if type(error) is not HeadError:
                raise

    def _checked_head(self) -> LinearHead:
        head = self.space.head
        # attributes of a module can be set: what was checked is compared with what is used now
        current = (head, *self._arguments())
        if self._checked != current:
            self._check(head)
            self._checked = current
        return head

    @abstractmethod
    def _arguments(self) -> tuple[Any, ...]:
        """Return the arguments that :meth:`_check` checks, as values that never change."""

    @abstractmethod
    def _check(self, head: LinearHead) -> None:
        """Raise ArgumentError if the arguments do not fit `head`."""

    @abstractmethod
    def _compute(self, head: LinearHead, z: Tensor) -> DistanceResult:
        """Return the distances of features `z` (B,d), float64 and detached."""


def distinct_classes(classes: object) -> tuple[int, ...] | None:
    """Return the distinct classes of argument ``classes``, ascending, or None for all."""
    if classes is None:
        return None
    fix = "pass a list such as [0, 1, 2], or leave it out for all"
    found = check_integer_tensor("classes", classes, ("m",), fix=fix, nonempty=True, convert=True)
    return tuple(found.unique().tolist())


def excluded_classes(classes: Sequence[int] | None, count: int, device: torch.device) -> Tensor:
    """Return a mask (K,) of the `count` classes that are not among `classes`."""
    out = torch.zeros(count, dtype=torch.bool, device=device)
    if classes is not None:
        out[:] = True
        out[list(classes)] = False
    return out
