"""State of an image search: the model evaluated from the clean images, and the best image so far.

Only this module changes a :class:`SearchState`; finders call its methods and read its attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.plugins.grading.images import tie_range

Norm = Literal["l2", "linf"]

_NEAR_FRACTION = 0.02
"""Third classes within this fraction of the range of the logits are taken into account."""

_TARGET_PROBABILITY = 0.7
"""Probability of the target, and the source has the rest, where a tie of both is sought."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThirdClass:
    """Rows ``index`` (N,) of a batch where a third class ``name`` (N,) is above or nearly so.

    ``excess`` (N,) is its logit minus the target's and ``gradient`` (N,n) the gradient of that.
    """

    index: Tensor
    name: Tensor
    excess: Tensor
    gradient: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GapGradient:
    """Gap, slack and range of the logits (R,) at some images, and the gradient (R,n) of the gap.

    With a chosen target also the third class, where one is near.
    """

    gap: Tensor
    slack: Tensor
    logit_range: Tensor
    gradient: Tensor
    third: ThirdClass | None


@final
class Stash(NamedTuple):
    """Best images (R,n) of some rows, their distances (R,), and whether they are on the boundary.

    See the attributes of the same names of :class:`SearchState`.
    """

    best: Tensor
    distance: Tensor
    on_boundary: Tensor


def attach_to_graph(outputs: Tensor, images: Tensor) -> Tensor:
    """Return `outputs` (B,m) with a gradient by `images`: 0 where a model ignores them."""
    return outputs + 0 * images.flatten(1).sum(dim=1, keepdim=True).to(outputs)


@final
class SearchState:
    """State of a batch of clean images on the way to the boundary; passes are counted by row.

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
        Distance of ``best``; +inf where no image across was seen.
    on_boundary : Tensor (B,), bool
        With a chosen target: whether ``best`` is near the tie with the source, and not only
        somewhere in the target's region. Maintained for :func:`walk_boundary`.
    aims_at_tie : Tensor (B,), bool
        With a chosen target: whether :meth:`soft_gap` leads to where target and source are both
        above the rest, instead of as far as possible into the target's region.
    num_backwards, num_forwards : Tensor (B,), int64
        Backward passes, and forward passes without a backward pass.
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
        self.on_boundary = torch.zeros_like(self.all_rows, dtype=torch.bool)
        self.aims_at_tie = self.on_boundary.clone()
        logits = self.logits(self.all_rows, self.clean)
        self.source = logits.argmax(dim=1)
        self._clean_range = logits.amax(dim=1) - logits.amin(dim=1)

    def logits(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return logits (R,K) of images `x` (R,n) of `rows`, without a graph."""
        self.num_forwards[rows] += 1
        with torch.no_grad():
            return self.view.logits(self.to_model_input(x)).to(x)

    def to_model_input(self, x: Tensor) -> Tensor:
        """Return `x` (R,n) in the shape and dtype of the model's input."""
        return x.to(self._dtype).view(-1, *self._shape)

    def count_backwards(self, rows: Tensor, count: int) -> None:
        """Record `count` backward passes for each of `rows`."""
        self.num_backwards[rows] += count

    def gaps(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gap and the slack to third classes (R,), +inf for "nearest"."""
        source, target, third = self._parts(rows, logits)
        return source - target, torch.maximum(source, target) - third

    def soft_gap(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return a smooth gap (R,) that depends on all classes, weighted by their softmax."""
        reference = self.source if self.target is None else self.target
        chosen = logits.gather(1, reference[rows, None])[:, 0]
        rest = logits.scatter(1, reference[rows, None], -torch.inf).logsumexp(dim=1)
        if self.target is None:
            return chosen - rest
        source = logits.gather(1, self.source[rows, None])[:, 0]
        both = logits.logsumexp(dim=1)
        both = both - _TARGET_PROBABILITY * chosen - (1 - _TARGET_PROBABILITY) * source
        return torch.where(self.aims_at_tie[rows], both, rest - chosen)

    def _parts(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits (R,) of the source, of the target and of the largest third class."""
        source = self.source[rows, None]
        source_logit = logits.gather(1, source)[:, 0]
        rest = logits.scatter(1, source, -torch.inf)
        if self.target is None:
            return source_logit, rest.amax(dim=1), torch.full_like(source_logit, -torch.inf)
        target = self.target[rows, None]
        third = rest.scatter(1, target, -torch.inf).amax(dim=1)
        return source_logit, logits.gather(1, target)[:, 0], third

    def gap_gradient(self, rows: Tensor, x: Tensor, *, smooth: bool = False) -> GapGradient:
        """Return the gap at images `x` (R,n) and its gradient; one backward pass per image.

        With a chosen target and without `smooth`, a second gradient is computed for images where
        a third class is above or nearly so.
        """
        logits, gradient = self._gradient(rows, x, self.soft_gap if smooth else self._gap)
        gap, slack = self.gaps(rows, logits)
        span = self.logit_range(rows, logits)
        result = GapGradient(gap=gap, slack=slack, logit_range=span, gradient=gradient, third=None)
        near = (slack < _NEAR_FRACTION * span).nonzero()[:, 0]
        if smooth or self.target is None or len(near) == 0:
            return result
        # a separate pass over these rows only, so that no row pays for another
        rows, x = rows[near], x[near]
        logits, gradient = self._gradient(rows, x, self._third_excess)
        pair = torch.stack([self.source[rows], self.target[rows]], dim=1)
        name = logits.scatter(1, pair, -torch.inf).argmax(dim=1)
        excess = self._third_excess(rows, logits)
        third = ThirdClass(index=near, name=name, excess=excess, gradient=gradient)
        return replace(result, third=third)

    def _gap(self, rows: Tensor, logits: Tensor) -> Tensor:
        return self.gaps(rows, logits)[0]

    def _third_excess(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the largest third logit minus the target's (R,)."""
        _, target, third = self._parts(rows, logits)
        return third - target

    def _gradient(
        self, rows: Tensor, x: Tensor, objective: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return logits (R,K) at images `x` (R,n) and the gradient (R,n) of their `objective`."""
        self.count_backwards(rows, 1)
        with torch.enable_grad():
            images = self.to_model_input(x).requires_grad_()
            logits = attach_to_graph(self.view.logits(images), images).to(x)
            (gradient,) = torch.autograd.grad(objective(rows, logits).sum(), images)
        return logits.detach(), gradient.flatten(1).to(x)

    def logit_range(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits that gaps are relative to, as in the core."""
        return tie_range(logits, self._clean_range[rows])

    def length(self, change: Tensor) -> Tensor:
        """Return the norm (R,) of changes (R,n)."""
        order = 2 if self.norm == "l2" else torch.inf
        out: Tensor = torch.linalg.vector_norm(change, ord=order, dim=1)
        return out

    def steepest_step(self, gradient: Tensor) -> Tensor:
        """Return the step of length 1 that raises ``gradient.x`` most, zero for a zero row."""
        if self.norm == "linf":
            return gradient.sign()
        size = self.length(gradient)[:, None]
        return torch.where(size > 0, gradient / size, 0.0)

    def update_best(self, rows: Tensor, x: Tensor, gap: Tensor, slack: Tensor) -> None:
        """Store the images `x` (R,n) of `rows` that are across and nearer than the best."""
        distance = self.length(x - self.clean[rows])
        better = (gap <= 0) & (slack >= 0) & (distance < self.distance[rows])
        self.distance[rows[better]] = distance[better]
        self.best[rows[better]] = x[better]

    def evaluate(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gap and slack (R,) of images `x` (R,n), after :meth:`update_best`."""
        gap, slack = self.gaps(rows, self.logits(rows, x))
        self.update_best(rows, x, gap, slack)
        return gap, slack

    def aim_at_tie(self, rows: Tensor) -> None:
        """Let :meth:`soft_gap` of `rows` lead to the tie of target and source."""
        self.aims_at_tie[rows] = True

    def discard_off_boundary(self, rows: Tensor) -> None:
        """Set the distance of those `rows` to +inf whose best is not on the boundary.

        With a chosen target only: inside the target's region is not on the boundary with the
        source, so only images that are put back onto the boundary count from here.
        """
        if self.target is not None:
            self.distance[rows[~self.on_boundary[rows]]] = torch.inf

    def record_walk(self, rows: Tensor, x: Tensor) -> None:
        """Mark the `rows` that reached the boundary; store `x` (R,n) of the others.

        With a chosen target only. A later walk of the others continues from these images.
        """
        if self.target is None:
            return
        self.on_boundary[rows] |= torch.isfinite(self.distance[rows])
        lost = ~self.on_boundary[rows]
        self.best[rows[lost]] = x[lost]

    def restore_distances(self) -> None:
        """Recompute the distances that :meth:`discard_off_boundary` set to +inf."""
        if self.target is None:
            return
        lost = torch.isinf(self.distance) & (self.best != self.clean).any(dim=1)
        self.distance[lost] = self.length(self.best - self.clean)[lost]

    def stash(self, rows: Tensor) -> Stash:
        """Return the best images of `rows`, and reset these rows to their clean images."""
        stashed = Stash(self.best[rows], self.distance[rows], self.on_boundary[rows])
        self.best[rows], self.distance[rows] = self.clean[rows], torch.inf
        self.on_boundary[rows] = False
        return stashed

    def restore(self, rows: Tensor, stashed: Stash) -> None:
        """Restore stashed images on the boundary or, if both or neither are on it, nearer ones."""
        best, distance, on_boundary = stashed
        nearer = distance < self.distance[rows]
        nearer = torch.where(on_boundary == self.on_boundary[rows], nearer, on_boundary)
        rows = rows[nearer]
        self.best[rows], self.distance[rows] = best[nearer], distance[nearer]
        self.on_boundary[rows] = on_boundary[nearer]

    def to_result(self, images: Tensor, valid: Tensor) -> FlipImages:
        """Return images (B,n), NaN where not `valid` (B,), as a proposal to the core."""
        nan = torch.full_like(self.distance, torch.nan, dtype=torch.float64)
        proposed = torch.where(valid[:, None], images, torch.nan)
        target = torch.full_like(self.source, -1) if self.target is None else self.target
        return FlipImages(
            images=self.to_model_input(proposed),
            distance=nan,  # the core computes it, and the residual
            residual=nan.clone(),
            source=self.source,
            target=target,
            status=torch.full_like(self.source, int(Status.UNDECIDED)),
            num_backwards=self.num_backwards,
            num_forwards=self.num_forwards,
        )
