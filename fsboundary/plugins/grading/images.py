"""A view of a model that counts what is asked of it.

Every image finder's answer is checked for shape, then graded by the model itself.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.errors import FsboundaryError, PluginError
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.plugins.interfaces import ImageBoundaryFinder


@final
class CountingView(ModelView):
    """Passes everything on to `view` and counts images.

    Attributes
    ----------
    passes : int
        Images that went forward.
    used : int
        Of these, images that a gradient came back for.
    gradients : int
        Gradients that came back, one an image and backward pass.
    """

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self.passes = self.used = self.gradients = 0

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B,K) of images (B,C,H,W), differentiable."""
        return self._view.logits(self.watched(images))

    def features(self, images: Tensor) -> Tensor:
        """Return features (B,d) of images (B,C,H,W), differentiable."""
        return self._view.features(self.watched(images))

    @property
    def head(self) -> LinearHead:
        """The last linear map."""
        return self._view.head

    @property
    def domain(self) -> Domain:
        """What the body can produce."""
        return self._view.domain

    @property
    def num_forwards(self) -> int:
        """Images that went forward and no gradient came back for."""
        return self.passes - self.used

    def watched(self, images: Tensor) -> Tensor:
        """Return `images` for one pass, counted now and when a gradient comes back."""
        self.passes += len(images)
        if not (images.requires_grad and torch.is_grad_enabled()):
            return images
        first = True

        def count(gradient: Tensor) -> None:
            nonlocal first
            # reading a number refuses batched gradients (vmap), which would count as one
            float(gradient.detach().sum())
            self.gradients += len(gradient)
            self.used += len(gradient) if first else 0
            first = False

        seen = images.view_as(images)
        seen.register_hook(count)
        return seen


TIE_TOLERANCE = 1e-4
"""On the boundary: the two logits differ by at most this share of the range of all logits, with two
classes of their difference at the clean image."""

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
    """Ask `finder` for flip images and return the graded answer.

    Everything is recomputed from the image as it is returned, in the dtype of `images`. An image
    on no boundary of its row, out of bounds or beyond a third class is replaced by NaN and has
    status INACCURATE; a row without an image has MAX_STEPS. What the finder and the grading spend
    is counted; the finder's word is taken only on how it splits among the rows.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
        Finite and within `bounds`.
    logits : Tensor (B, K)
        The model's, of each row.
    targets : Tensor (B,) or "nearest"
        Classes other than the source.

    Raises
    ------
    PluginError
        The finder raised, or its answer has the wrong type or shapes.
    """
    name = type(finder).__name__
    counted = CountingView(view)
    asked = targets.clone() if isinstance(targets, Tensor) else targets
    try:
        answer = finder.find(
            counted,
            images.clone(),
            targets=asked,
            bounds=bounds,
            norm=norm,
            max_steps=max_steps,
        )
    except FsboundaryError:
        raise
    except Exception as error:
        raise PluginError(
            f"image boundary finder {name} raised {type(error).__name__}: {error}"
        ) from error
    _check(name, answer, images)
    found = answer.images.detach().to(images.device, images.dtype)
    spent = (
        _shares(answer.num_backwards, counted.gradients, images.device),
        # and the grading's own pass over each image
        _shares(answer.num_forwards, counted.num_forwards, images.device) + 1,
    )
    return _grade(view, images, found, logits.to(torch.float64), targets, bounds, norm, spent)


def tie_range(logits: Tensor, first: Tensor) -> Tensor:
    """Return the range (R,) that a tie of `logits` (R,K) is told against.

    That of the logits; two have none on their tie, so there it is `first` (R,), at the clean image.
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


def _check(name: str, answer: object, images: Tensor) -> None:
    if not isinstance(answer, FlipImages):
        raise PluginError(
            f"image boundary finder {name} returned {type(answer).__name__}; wanted FlipImages"
        )
    rows = (len(images),)
    wanted = {"images": tuple(images.shape), "num_backwards": rows, "num_forwards": rows}
    for field, want in wanted.items():
        got = tuple(getattr(answer, field).shape)
        if got != want:
            raise PluginError(
                f"image boundary finder {name}: {field} has shape {got}; wanted {want}"
            )


def _shares(claimed: Tensor, counted: int, device: torch.device) -> Tensor:
    """Return `claimed` where its sum is what was counted, else equal shares, rounded up."""
    claimed = claimed.detach().to(device, torch.int64)
    if int(claimed.sum()) == counted and not bool((claimed < 0).any()):
        return claimed
    return torch.full_like(claimed, -(-counted // max(len(claimed), 1)))


def _grade(
    view: ModelView,
    images: Tensor,
    found: Tensor,
    first: Tensor,
    targets: Tensor | Literal["nearest"],
    bounds: tuple[float, float],
    norm: Norm,
    spent: tuple[Tensor, Tensor],
) -> FlipImages:
    source = first.argmax(dim=1)
    finite = torch.isfinite(found).flatten(1).all(dim=1)
    # a NaN row would be refused by a model view; the clean image stands in and is not graded
    shown = torch.where(finite[:, None, None, None], found, images)
    with torch.no_grad():
        logits = view.logits(shown).detach().to(source.device, torch.float64)
    high = logits.amax(dim=1)
    span = tie_range(logits, first.amax(dim=1) - first.amin(dim=1))
    own = logits.gather(1, source[:, None])[:, 0]
    if isinstance(targets, Tensor):
        target = targets
    else:
        target = logits.scatter(1, source[:, None], -torch.inf).argmax(dim=1)
    other = logits.gather(1, target[:, None])[:, 0]
    top = logits.topk(2, dim=1).values
    residual = (top[:, 0] - top[:, 1]) / span
    # where all logits are equal there is no boundary to be on; NaN compares false
    tied = ((own - other).abs() <= TIE_TOLERANCE * span) & (span > 0) & torch.isfinite(span)
    tied &= torch.maximum(own, other) == high
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
