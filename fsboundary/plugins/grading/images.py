"""Grading of image finders: passes are counted, shapes checked, and images graded by the model."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.errors import FsboundaryError
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.plugins.grading.calls import (
    Answer,
    handed_head,
    is_built_in,
    label_of,
    plugin_call,
)
from fsboundary.plugins.interfaces import ImageBoundaryFinder


@final
class CountingView(ModelView):
    """A view of a model that counts the images in forward and backward passes.

    Attributes
    ----------
    forward_passes : int
        Number of images in forward passes.
    with_backward : int
        Number of these images that also had a backward pass.
    gradients : int
        Number of gradients, one per image and backward pass.
    """

    def __init__(self, view: ModelView, head: LinearHead | None = None) -> None:
        self._view, self._head = view, head
        self.forward_passes = self.with_backward = self.gradients = 0

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B,K) of images (B,C,H,W), differentiable."""
        return self._view.logits(self.count_pass(images))

    def features(self, images: Tensor) -> Tensor:
        """Return features (B,d) of images (B,C,H,W), differentiable."""
        return self._view.features(self.count_pass(images))

    @property
    def head(self) -> LinearHead:
        """The last linear map, or the copy of it that this view was created with."""
        return self._view.head if self._head is None else self._head

    @property
    def domain(self) -> Domain:
        """The domain of the features."""
        return self.head.domain

    @property
    def num_forwards(self) -> int:
        """Number of images with a forward pass only."""
        return self.forward_passes - self.with_backward

    def count_pass(self, images: Tensor) -> Tensor:
        """Return `images` for one pass, counted now and when a gradient is computed."""
        self.forward_passes += len(images)
        if not (images.requires_grad and torch.is_grad_enabled()):
            return images
        first = True

        def count(gradient: Tensor) -> None:
            nonlocal first
            # reading a number raises for batched gradients (vmap), which would count as one
            float(gradient.detach().sum())
            self.gradients += len(gradient)
            self.with_backward += len(gradient) if first else 0
            first = False

        seen = images.view_as(images)
        seen.register_hook(count)
        return seen


TIE_TOLERANCE = 1e-4
"""On the boundary, the two logits differ by at most this fraction of the range of all logits; with
two classes, of their difference at the clean image."""

Norm = Literal["l2", "linf"]


def find_and_grade_images(
    finder: ImageBoundaryFinder,
    view: ModelView,
    images: Tensor,
    logits: Tensor,
    targets: Tensor | Literal["nearest"],
    *,
    bounds: tuple[float, float],
    norm: Norm,
    max_steps: int,
) -> FlipImages:
    """Return the graded flip images that `finder` proposes.

    Everything is recomputed from the returned image, in the dtype of `images`. An image on no
    boundary of its row, out of bounds or beyond a third class is replaced by NaN and has status
    INACCURATE; a row without an image has MAX_STEPS. The passes of the finder and of the grading
    are counted; only their distribution over the rows is taken from the finder.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
        Finite and within `bounds`.
    logits : Tensor (B, K)
        The model's logits of each row.
    targets : Tensor (B,) or "nearest"
        Classes other than the source.

    Raises
    ------
    PluginError
        The finder raised, or a field of its answer has another type, shape or device.
    """
    label, own = label_of("image boundary finder", finder), is_built_in(finder)
    rows = len(images)
    model = getattr(view, "model", None)
    with (
        handed_head(label, view.head, own=own) as head,
        # errors of the model and of its head are not the finder's
        plugin_call(label, trusted=own, passes=(FsboundaryError,), draws=True, model=model),
    ):
        counted = CountingView(view, head)
        answer = finder.find(
            counted,
            images.clone(),
            targets=targets.clone() if isinstance(targets, Tensor) else targets,
            bounds=bounds,
            norm=norm,
            max_steps=max_steps,
        )
    fields = Answer(label, answer, FlipImages, images.device, own=own)
    proposed = fields.floats("images", *images.shape).to(images.dtype)
    spent = (
        _distribute_count(fields.integers("num_backwards", rows), counted.gradients),
        # and one pass per image for grading
        _distribute_count(fields.integers("num_forwards", rows), counted.num_forwards) + 1,
    )
    return _grade(view, images, proposed, logits.to(torch.float64), targets, bounds, norm, spent)


def tie_range(logits: Tensor, first: Tensor) -> Tensor:
    """Return the range (R,) of `logits` (R,K), which ties are relative to.

    Two classes have range 0 at a tie, so for them it is `first` (R,), that at the clean image.
    """
    if logits.shape[1] == 2:
        return first
    return logits.amax(dim=1) - logits.amin(dim=1)


def pixel_distance(images: Tensor, others: Tensor, norm: Norm) -> Tensor:
    """Return the distance (B,), float64, between images (B,...) of one batch."""
    change = (images.double() - others.double()).flatten(1)
    order = 2 if norm == "l2" else torch.inf
    out: Tensor = torch.linalg.vector_norm(change, ord=order, dim=1)
    return out


def _distribute_count(claimed: Tensor, counted: int) -> Tensor:
    """Return `claimed` if its sum is `counted`, else equal numbers per row, rounded up."""
    if int(claimed.sum()) == counted and not bool((claimed < 0).any()):
        return claimed
    return torch.full_like(claimed, -(-counted // max(len(claimed), 1)))


def _grade(
    view: ModelView,
    images: Tensor,
    proposed: Tensor,
    first: Tensor,
    targets: Tensor | Literal["nearest"],
    bounds: tuple[float, float],
    norm: Norm,
    spent: tuple[Tensor, Tensor],
) -> FlipImages:
    source = first.argmax(dim=1)
    finite = torch.isfinite(proposed).flatten(1).all(dim=1)
    # a model view would raise on a NaN row; the clean image replaces it and is not graded
    shown = torch.where(finite[:, None, None, None], proposed, images)
    with torch.no_grad():
        logits = view.logits(shown).detach().to(source.device, torch.float64)
    high = logits.amax(dim=1)
    span = tie_range(logits, first.amax(dim=1) - first.amin(dim=1))
    source_logit = logits.gather(1, source[:, None])[:, 0]
    if isinstance(targets, Tensor):
        target = targets
    else:
        target = logits.scatter(1, source[:, None], -torch.inf).argmax(dim=1)
    target_logit = logits.gather(1, target[:, None])[:, 0]
    top = logits.topk(2, dim=1).values
    residual = (top[:, 0] - top[:, 1]) / span
    # if all logits are equal, there is no boundary; NaN compares false
    tied = (
        ((source_logit - target_logit).abs() <= TIE_TOLERANCE * span)
        & (span > 0)
        & torch.isfinite(span)
    )
    tied &= torch.maximum(source_logit, target_logit) == high
    edges = torch.tensor(bounds, dtype=images.dtype, device=images.device)
    inside = ((shown >= edges[0]) & (shown <= edges[1])).flatten(1).all(dim=1)
    good = finite & tied & inside
    status = torch.where(finite, int(Status.INACCURATE), int(Status.MAX_STEPS))
    status = torch.where(good, int(Status.CONVERGED), status)
    blank = torch.where(good, 0.0, torch.nan).to(torch.float64)
    return FlipImages(
        images=torch.where(good[:, None, None, None], shown, torch.nan),
        distance=pixel_distance(shown, images, norm) + blank,
        residual=residual + blank,
        source=source,
        target=target,
        status=status,
        num_backwards=spent[0],
        num_forwards=spent[1],
    )
