"""What all image finders share: the model seen from the clean images, and the best so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.plugins.grading.images import tie_range

Norm = Literal["l2", "linf"]

_NEARLY = 0.02
"""A third class nearer than this share of the range of the logits is taken into account."""

_TARGET = 0.7
"""Probability of the target, and the source has the rest, where a tie of both is looked for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Third:
    """Rows ``near`` (N,) of a batch where a third class ``name`` (N,) is above or nearly so.

    ``over`` (N,) is its logit minus the target's and ``gradient`` (N,n) the gradient of that.
    """

    near: Tensor
    name: Tensor
    over: Tensor
    gradient: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slope:
    """Gap, slack and range of the logits (R,) at some images, and the gradient (R,n) of the gap.

    With a chosen target also the third class, where there is one to mind.
    """

    gap: Tensor
    slack: Tensor
    span: Tensor
    gradient: Tensor
    third: Third | None


def tied(outputs: Tensor, images: Tensor) -> Tensor:
    """Return `outputs` (B,m), with a gradient by `images` even where a model ignores them, 0."""
    return outputs + 0 * images.flatten(1).sum(dim=1, keepdim=True).to(outputs)


@final
class ImageSearch:
    """A batch of clean images on the way to the boundary; every pass is recorded by row.

    Images are flat rows (B,n) in at least float32; the model sees them rounded to the dtype of
    the clean images. The gap of an image is source logit minus target logit ("nearest": minus the
    largest other logit), so it is positive at the clean image. An image is *across* where its gap
    is not positive and, with a chosen target, no third class is above both.

    Parameters
    ----------
    view : ModelView
    images : Tensor (B, C, H, W)
    targets : Tensor (B,) or "nearest"
    bounds : (float, float)
    norm : {"l2", "linf"}

    Attributes
    ----------
    clean : Tensor (B, n)
    source : Tensor (B,)
    target : Tensor (B,), or None for "nearest"
    best : Tensor (B, n)
        The nearest image across so far; the clean image where none was seen.
    distance : Tensor (B,)
        Of ``best``; +inf where none was seen.
    tied : Tensor (B,), bool
        With a chosen target: whether ``best`` is near the tie with the source, and not only
        somewhere in the target's region. Kept by :func:`slide`.
    near_tie : Tensor (B,), bool
        With a chosen target: whether :meth:`softened` leads to where target and source are both
        above the rest, and not as far into the target's region as can be.
    """

    def __init__(
        self,
        view: ModelView,
        images: Tensor,
        targets: Tensor | Literal["nearest"],
        bounds: tuple[float, float],
        norm: Norm,
    ) -> None:
        self.view, self.norm = view, norm
        self._shape, self._dtype = images.shape[1:], images.dtype
        # bounds as the images' dtype holds them: rounding an image must not leave the box
        edges = torch.tensor(bounds, dtype=images.dtype)
        self.box = float(edges[0]), float(edges[1])
        self.clean = images.flatten(1).to(torch.promote_types(images.dtype, torch.float32))
        self.target = targets if isinstance(targets, Tensor) else None
        count = len(images)
        self.num_backwards = torch.zeros(count, dtype=torch.int64, device=images.device)
        self.num_forwards = self.num_backwards.clone()
        self.all_rows = torch.arange(count, device=images.device)
        self.best = self.clean.clone()
        self.distance = torch.full_like(self.clean[:, 0], torch.inf)
        self.tied = torch.zeros_like(self.all_rows, dtype=torch.bool)
        self.near_tie = self.tied.clone()
        logits = self.logits(self.all_rows, self.clean)
        self.source = logits.argmax(dim=1)
        self._range = logits.amax(dim=1) - logits.amin(dim=1)

    def logits(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return logits (R,K) of images `x` (R,n) of `rows`, without a graph."""
        self.num_forwards[rows] += 1
        with torch.no_grad():
            return self.view.logits(self.shown(x)).to(x)

    def shown(self, x: Tensor) -> Tensor:
        """Return `x` (R,n) as the model sees it."""
        return x.to(self._dtype).view(-1, *self._shape)

    def gaps(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gap and the slack to third classes (R,), +inf where any class will do."""
        own, other, third = self._parts(rows, logits)
        return own - other, torch.maximum(own, other) - third

    def softened(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return a smooth gap (R,) that all classes share in, each by its weight in a softmax."""
        one = self.source if self.target is None else self.target
        chosen = logits.gather(1, one[rows, None])[:, 0]
        rest = logits.scatter(1, one[rows, None], -torch.inf).logsumexp(dim=1)
        if self.target is None:
            return chosen - rest
        own = logits.gather(1, self.source[rows, None])[:, 0]
        both = logits.logsumexp(dim=1) - _TARGET * chosen - (1 - _TARGET) * own
        return torch.where(self.near_tie[rows], both, rest - chosen)

    def _parts(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        source = self.source[rows, None]
        own = logits.gather(1, source)[:, 0]
        rest = logits.scatter(1, source, -torch.inf)
        if self.target is None:
            return own, rest.amax(dim=1), torch.full_like(own, -torch.inf)
        target = self.target[rows, None]
        third = rest.scatter(1, target, -torch.inf).amax(dim=1)
        return own, logits.gather(1, target)[:, 0], third

    def slope(self, rows: Tensor, x: Tensor, *, smooth: bool = False) -> Slope:
        """Return the gap at images `x` (R,n) and how it changes; one gradient an image.

        With a chosen target and without `smooth`, a second gradient is spent on images where a
        third class is above or nearly so.
        """
        logits, gradient = self._gradient(rows, x, self.softened if smooth else self._gap)
        gap, slack = self.gaps(rows, logits)
        span = self.scale(rows, logits)
        slope = Slope(gap=gap, slack=slack, span=span, gradient=gradient, third=None)
        near = (slack < _NEARLY * span).nonzero()[:, 0]
        if smooth or self.target is None or len(near) == 0:
            return slope
        # a pass of their own, so that no row pays for another
        rows, x = rows[near], x[near]
        logits, gradient = self._gradient(rows, x, self._over)
        pair = torch.stack([self.source[rows], self.target[rows]], dim=1)
        name = logits.scatter(1, pair, -torch.inf).argmax(dim=1)
        over = self._over(rows, logits)
        return replace(slope, third=Third(near=near, name=name, over=over, gradient=gradient))

    def _gap(self, rows: Tensor, logits: Tensor) -> Tensor:
        return self.gaps(rows, logits)[0]

    def _over(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the largest third logit minus the target's (R,)."""
        _, other, third = self._parts(rows, logits)
        return third - other

    def _gradient(
        self, rows: Tensor, x: Tensor, aim: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (R,K) at images `x` (R,n) and the gradient (R,n) of `aim` of them."""
        self.num_backwards[rows] += 1
        with torch.enable_grad():
            shown = self.shown(x).requires_grad_()
            logits = tied(self.view.logits(shown), shown).to(x)
            (gradient,) = torch.autograd.grad(aim(rows, logits).sum(), shown)
        return logits.detach(), gradient.flatten(1).to(x)

    def scale(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits that a gap is measured by, as the core does."""
        return tie_range(logits, self._range[rows])

    def length(self, change: Tensor) -> Tensor:
        """Return the norm (R,) of changes (R,n)."""
        order = 2 if self.norm == "l2" else torch.inf
        out: Tensor = torch.linalg.vector_norm(change, ord=order, dim=1)
        return out

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the step of length 1 that raises ``gradient.x`` most, zero for a zero row."""
        if self.norm == "linf":
            return gradient.sign()
        size = self.length(gradient)[:, None]
        return torch.where(size > 0, gradient / size, 0.0)

    def keep(self, rows: Tensor, x: Tensor, gap: Tensor, slack: Tensor) -> None:
        """Remember images across that are nearer than the best."""
        distance = self.length(x - self.clean[rows])
        better = (gap <= 0) & (slack >= 0) & (distance < self.distance[rows])
        self.distance[rows[better]] = distance[better]
        self.best[rows[better]] = x[better]

    def set_aside(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best of rows, their distances and ties, and begin anew without them."""
        kept = self.best[rows], self.distance[rows], self.tied[rows]
        self.best[rows], self.distance[rows] = self.clean[rows], torch.inf
        self.tied[rows] = False
        return kept

    def recall(self, rows: Tensor, kept: tuple[Tensor, Tensor, Tensor]) -> None:
        """Take back what was set aside where it is a tie or, if both or none are, nearer."""
        best, distance, tied = kept
        nearer = torch.where(tied == self.tied[rows], distance < self.distance[rows], tied)
        rows = rows[nearer]
        self.best[rows], self.distance[rows] = best[nearer], distance[nearer]
        self.tied[rows] = tied[nearer]

    def answer(self, images: Tensor, found: Tensor) -> FlipImages:
        """Return images (B,n), NaN where not `found` (B,), as the answer to the core."""
        nan = torch.full_like(self.distance, torch.nan, dtype=torch.float64)
        proposed = torch.where(found[:, None], images, torch.nan)
        target = torch.full_like(self.source, -1) if self.target is None else self.target
        return FlipImages(
            images=self.shown(proposed),
            distance=nan,  # the core computes it, and the residual
            residual=nan.clone(),
            source=self.source,
            target=target,
            status=torch.full_like(self.source, int(Status.UNDECIDED)),
            num_backwards=self.num_backwards,
            num_forwards=self.num_forwards,
        )
