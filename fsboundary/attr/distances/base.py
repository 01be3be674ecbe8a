"""Second derivatives of distances.

Near a row whose nearest point lies inside a face of the set, the distance f is that to the flat
that the face spans. With N the projector on the directions normal to the flat and u the unit
direction, the second derivative is ``(N - u uᵀ) / f``: 0 where one constraint holds the point.
It does not exist where the nearest point moves from one face to another.

What the distance modules share: from images to certified distances with a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fsboundary.attr.distances.envelope import Answer, Pass, attach, warn_of_values, watched
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.norms import lengths, pair_norms
from fsboundary.models.images import check_images
from fsboundary.space import FeatureSpace, space_of

_TIED, _HELD = 1e-6, 1e-12
"""A class ties at a point, or a face of the domain holds it, that comes so near, as a share of the
size of row and point. Certified points miss ties by a hundredth of this, and are clipped to the
domain exactly."""


def bent(vectors: Tensor, normal_part: Tensor, unit: Tensor, value: Tensor) -> Tensor:
    """Return ``(N - u uᵀ) v / f``, (P,d); 0 where the value (P,) is 0 or infinite."""
    along = torch.linalg.vecdot(unit, vectors)[:, None]
    fine = torch.isfinite(value) & (value != 0)
    out = (normal_part - along * unit) / torch.where(fine, value, 1.0)[:, None]
    out = torch.where(fine[:, None], out, 0.0)
    return torch.where(torch.isnan(value)[:, None], torch.nan, out)


def boundary_normals(head: LinearHead, z: Tensor, points: Tensor, vectors: Tensor) -> Tensor:
    """Return the part of `vectors` (P,d) normal to the face of the boundary at `points` (P,d).

    The face is where the classes that tie at the point tie, within the domain's faces there.
    """
    size = (lengths(z) + lengths(points))[:, None]
    logits = head.logits(points)
    top, anchor = logits.max(dim=1, keepdim=True)
    tied = top - logits <= _TIED * size * pair_norms(head, 2.0)[anchor[:, 0]]
    low, high = head.domain.limits(points)
    held = (points - low <= _HELD * size) | (high - points <= _HELD * size)
    rows = torch.where(tied[..., None], head.weight - head.weight[anchor], 0.0)
    inside = torch.where(held, 0.0, vectors)
    return torch.where(held, vectors, spanned(torch.where(held[:, None], 0.0, rows), inside))


def spanned(rows: Tensor, vectors: Tensor) -> Tensor:
    """Return the projection of `vectors` (P,d) on the span of `rows` (P,S,d)."""
    # rows of unit length, so that short ones count as much as long ones
    size = lengths(rows)[..., None]
    rows = rows / torch.where(size > 0, size, 1.0)
    inverse = torch.linalg.pinv(rows @ rows.mT, hermitian=True, rtol=1e-10)
    weights = inverse @ (rows @ vectors[..., None])
    out: Tensor = (rows.mT @ weights)[..., 0]
    return out


class Distance(nn.Module, ABC):
    """Images to distances in feature space, (B,...) to (B,K), for any attribution method.

    The model of the space is the submodule ``model``, so that its layers can be explained and
    hooked; it is called as it is.
    """

    def __init__(self, space: nn.Module | FeatureSpace) -> None:
        super().__init__()
        self.space = space_of(space)
        self.model = self.space.model
        # not train(): the mode of the model is the user's
        self.training = self.model.training
        self._head: LinearHead | None = None
        self._told = False

    def forward(self, images: Tensor, *additional: Any) -> Tensor:
        """Return the distances of `images`, in the dtype of the features.

        Parameters
        ----------
        images : Tensor (B, ...)
            What the space takes; on any device.
        *additional : object
            Passed to the model after the images.
        """
        check_images(images)
        record = Pass()
        features = self.space.features(watched(images, record), *additional)
        head = self._checked_head().to(features.device)
        answer = self._answer(head, features.detach().double())
        out = attach(features, answer, record)
        if not out.requires_grad:
            # no backward pass will tell, as in perturbation methods
            warn_of_values(answer, columns=not self._told)
            self._told = True
        return out

    def _check_early(self) -> None:
        """Check against the head where it is known by now; else the first pass does."""
        try:
            self._checked_head()
        except HeadError as error:
            if type(error) is not HeadError:
                raise

    def _checked_head(self) -> LinearHead:
        head = self.space.head
        if self._head is not head:
            self._check(head)
            self._head = head
        return head

    @abstractmethod
    def _check(self, head: LinearHead) -> None:
        """Raise ArgumentError where the arguments do not fit `head`."""

    @abstractmethod
    def _answer(self, head: LinearHead, z: Tensor) -> Answer:
        """Return the distances of features `z` (B,d), float64 and detached."""


def checked_classes(classes: object) -> list[int] | None:
    """Return the distinct classes of argument ``classes``, or None for all."""
    if classes is None:
        return None
    chosen = classes.tolist() if isinstance(classes, Tensor) else classes
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not all(map(_whole, chosen)):
        fix = "pass a list such as [0, 1, 2], or leave it out for all"
        raise ArgumentError("classes", repr(classes), "whole numbers", fix)
    if not chosen:
        raise ArgumentError("classes", "none", "at least one class", "leave it out for all")
    return sorted(set(chosen))


def check_class(name: str, value: int, count: int) -> None:
    """Raise ArgumentError unless `value` is one of `count` classes."""
    if not 0 <= value < count:
        raise ArgumentError(name, str(value), f"0 to {count - 1}", "count classes from 0")


def left_out(classes: list[int] | None, count: int, device: torch.device) -> Tensor:
    """Return which of `count` classes are not among `classes`, (K,)."""
    out = torch.zeros(count, dtype=torch.bool, device=device)
    if classes is not None:
        out[:] = True
        out[classes] = False
    return out


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
