"""The default image finder: starts from the flip points of the features, refines in pixels.

Read it with ``boundary_walk.py``, the refinement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import bracket
from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.image_finders.boundary_walk import (
    linearised_projection,
    project_to_boundary,
    walk_boundary,
)
from fsboundary.builtin.image_finders.box_projection import project_onto_plane
from fsboundary.builtin.image_finders.norm_descent import norm_bounded_descent
from fsboundary.builtin.image_finders.search_state import SearchState, Stash, attach_to_graph
from fsboundary.builtin.image_finders.segments import (
    perturb_best,
    random_probe,
    scan,
    segment_ends,
)
from fsboundary.core.checks import check_instance, check_integers, check_number
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.plugins.interfaces import ImageBoundaryFinder

_FEW_PIXELS, _PROBES = 16, 32
"""Images of at most this many pixels are also searched in this many random directions."""
_AROUND, _AROUND_ROUNDS = 16, 10
"""With "nearest", such images are also searched around the best: this many directions, this many
times."""
_FINAL_DAMPING = 0.2, 0.05
"""Damping of the final refinement."""
_SEGMENT_POINTS = 8
"""Steps along each segment that rows without an image across follow."""


@final
@dataclass(frozen=True, slots=True)
class FeatureGuided(ImageBoundaryFinder):
    """Choose a part of the boundary by a broad descent, then walk to its nearest point.

    The descent starts from the exact flip points of the features, for the nearest classes, each
    pulled back to pixels by one gradient: from the one that seems nearest in pixels. It updates
    the norm of the change separately, within the smallest known (:func:`norm_bounded_descent`).
    The result is refined by successive linearisations with projection (:func:`walk_boundary`) and
    bracketed onto the boundary. With a chosen target, rows that came across far from the tie
    search for the tie itself in a second round, and the better of both is taken. Rows that the
    descent does not bring across are led there by lowering the gap step by step.

    Parameters
    ----------
    num_start_classes : int
        Number of classes that compete for the first image; a tenth of the gradients at most.
    step_size : float
        First length of a gradient step of a round, relative to the norm of the change. Steps
        longer than the change search many parts of the boundary.
    target_step_size : float
        The same with a chosen target. A small region far away is found only by steps shorter than
        the change: it is then the sum of many gradients, not the last one.
    norm_decrease, norm_increase : float
        Fraction by which the norm of the change falls or grows in a step.
    round_fractions : tuple of float
        Fractions of the descent's gradients, one per round; in each round steps are large first,
        and all rounds but the first begin at the clean image.
    final_fraction : float
        Fraction of the gradients for the final refinement; with a chosen target, a quarter of it
        after the first round.
    """

    num_start_classes: int = 3
    step_size: float = 6.0
    target_step_size: float = 0.4
    norm_decrease: float = 0.1
    norm_increase: float = 0.05
    round_fractions: tuple[float, ...] = (0.6, 0.4)
    final_fraction: float = 0.15

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(self, num_start_classes=self.num_start_classes)
        fix = "leave it out"
        check_number("step_size", self.step_size, 0, fix=fix)
        check_number("target_step_size", self.target_step_size, 0, fix=fix)
        check_number("norm_decrease", self.norm_decrease, 0, 1, fix=fix)
        check_number("norm_increase", self.norm_increase, 0, fix=fix)
        check_number("final_fraction", self.final_fraction, 0, 1, closed="low", fix=fix)
        parts = check_instance(
            "round_fractions", self.round_fractions, tuple, "a tuple of fractions", fix
        )
        for part in parts:
            check_number("round_fractions", part, 0, 1, closed="high", fix=fix)
        check_number("round_fractions, in all", sum(parts), 0, 1 + 1e-9, fix=fix)

    def find(
        self,
        view: ModelView,
        images: Tensor,
        *,
        targets: Tensor | Literal["nearest"],
        bounds: tuple[float, float],
        norm: Literal["l2", "linf"],
        max_steps: int,
    ) -> FlipImages:
        """Propose the best image of at most `max_steps` gradients (see :func:`walk_boundary`)."""
        search = SearchState(view, images, targets, bounds, norm)
        start = self._start(search, max_steps)
        remaining = max_steps - int(search.num_backwards.max())
        final = math.ceil(self.final_fraction * remaining)
        first_walk = 0 if search.target is None else final // 4
        retried, stashed = self._descend(search, start, remaining - final, first_walk)
        _refine(search, retried, stashed, final - first_walk)
        unsolved = torch.isinf(search.distance).nonzero()[:, 0]
        _solve_hard_rows(search, unsolved, start, final)
        return search.to_result(*bracket(search))

    def _start(self, search: SearchState, max_steps: int) -> Tensor:
        """Return the first images (B,n); where the body is linear they are the result already."""
        num_classes = max(1, min(self.num_start_classes, max_steps // 10))
        start = feature_step(search, num_classes)
        if max_steps > int(search.num_backwards.max()):
            rows = search.all_rows
            project_to_boundary(search, rows, start, search.gap_gradient(rows, start))
        return start

    def _descend(
        self, search: SearchState, start: Tensor, steps: int, first_walk: int
    ) -> tuple[Tensor, Stash]:
        """Descend in rounds of `steps` gradients in all; with a chosen target, retry lost rows.

        After the first round, a walk of `first_walk` gradients decides which rows are lost: those
        that are not on the boundary with the source.

        Returns
        -------
        (Tensor (L,), Stash)
            The rows that were retried, and their best images before.
        """
        low, high = search.box
        # in the largest-pixel norm, a change of all pixels that has this L2 norm
        factor = 1.0 if search.norm == "l2" else search.clean.shape[1] ** -0.5
        change, retried = search.best - search.clean, search.all_rows[:0]
        stashed = search.stash(retried)  # none yet
        ends = [round(end * steps) for end in (0.0, *accumulate(self.round_fractions))]
        for k, (begin, end) in enumerate(pairwise(ends)):
            if k == 1 and search.target is not None:
                walk_boundary(search, _rows_across(search), first_walk)
                retried = (~search.on_boundary).nonzero()[:, 0]
                stashed = search.stash(retried)
                search.aim_at_tie(retried)
                change[retried] = start[retried] - search.clean[retried]
            norm_bounded_descent(
                search,
                end - begin,
                change,
                radius=(high - low) * factor,
                step_size=self.step_size if search.target is None else self.target_step_size,
                norm_decrease=self.norm_decrease,
                norm_increase=self.norm_increase,
            )
            # from another side
            change = torch.zeros_like(change)
        return retried, stashed


def feature_step(search: SearchState, num_classes: int) -> Tensor:
    """Return images (B,n) whose features are, to first order, at a flip point.

    For each of the `num_classes` classes whose boundaries are nearest in feature space (or the
    chosen target only): one gradient of the features along the direction to the flip point, and
    the nearest image within the box that reaches it on the linearisation. The nearest of these is
    returned; exact where the body is linear. The clean image where no flip point is known.
    """
    rows, clean = search.all_rows, search.clean
    best, distance = clean.clone(), torch.full_like(search.distance, torch.inf)
    with torch.enable_grad():
        images = search.to_model_input(clean).requires_grad_()
        features = attach_to_graph(search.view.features(images), images)
        directions = _directions_to_flip(search, features.detach().double(), num_classes)
        columns = directions.shape[1]
        search.count_backwards(rows, columns)
        for column in range(columns):
            objective = (features * directions[:, column].to(features)).sum()
            (raw,) = torch.autograd.grad(objective, images, retain_graph=column + 1 < columns)
            gradient = raw.flatten(1).to(clean)
            advance = directions[:, column].square().sum(dim=1).to(clean)
            level = torch.linalg.vecdot(gradient, clean) + advance
            image, _ = project_onto_plane(clean, -gradient, -level, search.box, search.norm)
            size = search.length(image - clean)
            better = (size > 0) & (size < distance)
            distance = torch.where(better, size, distance)
            best = torch.where(better[:, None], image, best)
    return best


def _directions_to_flip(search: SearchState, features: Tensor, num_classes: int) -> Tensor:
    """Return flip points minus features (B,T,d); 0 where there is none or the head disagrees."""
    head = search.view.head.to(features.device)
    usable = torch.isfinite(features).all(dim=1) & head.domain.contains(features)
    rows = usable.nonzero()[:, 0]
    rows = rows[head.predict(features[rows]) == search.source[rows]]
    if search.target is None:
        targets = _nearest_classes(head, features[rows], search.source[rows], num_classes)
    else:
        targets = search.target[rows, None]
    directions = features.new_zeros(len(features), targets.shape[1], features.shape[1])
    flips = DualNewton().find(
        head, features[rows], targets=targets, tolerance=FLIP_RTOL, max_steps=100
    )
    directions[rows] = torch.nan_to_num(flips.points - features[rows, None])
    return directions


def _nearest_classes(head: LinearHead, z: Tensor, source: Tensor, num_classes: int) -> Tensor:
    """Return the classes (B,T) with the nearest hyperplanes, nearest first."""
    logits, weight = head.logits(z), head.weight
    gaps = logits.gather(1, source[:, None]) - logits
    norms = torch.linalg.vector_norm(weight[source][:, None] - weight, dim=2)
    ratio = torch.nan_to_num(gaps / norms, nan=torch.inf).scatter(1, source[:, None], torch.inf)
    return ratio.topk(min(num_classes, head.num_classes - 1), dim=1, largest=False).indices


def _rows_across(search: SearchState) -> Tensor:
    return torch.isfinite(search.distance).nonzero()[:, 0]


def _refine(search: SearchState, retried: Tensor, stashed: Stash, steps: int) -> None:
    """Walk to the nearest point, for `steps` gradients; images of few pixels search at random."""
    across = _rows_across(search)
    few_pixels = search.clean.shape[1] <= _FEW_PIXELS
    if few_pixels:
        random_probe(search, across, _PROBES)
    _walk_from_both(search, retried, stashed, steps)
    once = across[~torch.isin(across, retried)]
    walk_boundary(search, once, steps, damping=_FINAL_DAMPING)
    if few_pixels and search.target is None:
        perturb_best(search, across, _AROUND, _AROUND_ROUNDS)


def _walk_from_both(search: SearchState, rows: Tensor, stashed: Stash, steps: int) -> None:
    """Walk from both images of `rows`, the best and the stashed one; the better one is kept."""
    for _ in range(2):
        across = rows[torch.isfinite(search.distance[rows])]
        walk_boundary(search, across, steps, damping=_FINAL_DAMPING)
        second = search.stash(rows)
        search.restore(rows, stashed)
        stashed = second
    search.restore(rows, stashed)


def _solve_hard_rows(search: SearchState, rows: Tensor, start: Tensor, steps: int) -> None:
    """Find any image across for `rows` without one, then walk with the remaining gradients."""
    follow_homotopy(search, rows, steps // 2)
    unsolved = rows[torch.isinf(search.distance[rows])]
    # twice the linear estimate, then segments to images that may be of another class
    ahead = search.clean + 2 * (start - search.clean)
    scan(search, unsolved, ahead[unsolved].clamp(*search.box), _SEGMENT_POINTS)
    for ends in segment_ends(search, rows):
        left = torch.isinf(search.distance[rows])
        scan(search, rows[left], ends[left], _SEGMENT_POINTS)
    rows = rows[torch.isfinite(search.distance[rows])]
    walk_boundary(search, rows, steps - steps // 2)


def follow_homotopy(search: SearchState, rows: Tensor, steps: int) -> None:
    """Lower the gap of `rows` step by step from that of the clean image to below 0."""
    x = search.clean[rows].clone()
    first: Tensor | None = None
    for step in range(steps):
        if len(rows) == 0:
            return
        slope = search.gap_gradient(rows, x)
        first = slope.gap if first is None else first
        height = first * (1 - 1.2 * (step + 1) / steps)
        x, _ = linearised_projection(search, rows, x, slope, height)
        search.evaluate(rows, x)
        going = torch.isinf(search.distance[rows])
        rows, x, first = rows[going], x[going], first[going]
