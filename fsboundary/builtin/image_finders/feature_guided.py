"""From flip points in feature space to first images in pixels.

The default image finder: led by the flip point in feature space, refined in pixels.
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
from fsboundary.builtin.image_finders.boundary_walk import linearised, settle, slide
from fsboundary.builtin.image_finders.box_projection import onto_plane
from fsboundary.builtin.image_finders.norm_descent import descend_inside
from fsboundary.builtin.image_finders.search_state import ImageSearch, tied
from fsboundary.builtin.image_finders.segments import probes, ring, scan, stir
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.plugins.interfaces import ImageBoundaryFinder


def pulled_back(search: ImageSearch, choices: int) -> Tensor:
    """Return images (B,n) whose features are, to first order, at a flip point.

    For each of the `choices` classes whose boundaries are nearest in feature space (or the chosen
    target alone): one gradient of the features along the way to the flip point, and the nearest
    image within the box that goes all the way on the linearisation. The nearest of these is
    returned; exact where the body is linear. The clean image where no flip point is known.
    """
    rows, clean = search.all_rows, search.clean
    best, distance = clean.clone(), torch.full_like(search.distance, torch.inf)
    with torch.enable_grad():
        shown = search.shown(clean).requires_grad_()
        features = tied(search.view.features(shown), shown)
        ways = _ways_to_flip(search, features.detach().double(), choices)
        columns = ways.shape[1]
        search.num_backwards[rows] += columns
        for column in range(columns):
            aim = (features * ways[:, column].to(features)).sum()
            (raw,) = torch.autograd.grad(aim, shown, retain_graph=column + 1 < columns)
            gradient = raw.flatten(1).to(clean)
            advance = ways[:, column].square().sum(dim=1).to(clean)
            level = torch.linalg.vecdot(gradient, clean) + advance
            image, _ = onto_plane(clean, -gradient, -level, search.box, search.norm)
            size = search.length(image - clean)
            better = (size > 0) & (size < distance)
            distance = torch.where(better, size, distance)
            best = torch.where(better[:, None], image, best)
    return best


def _ways_to_flip(search: ImageSearch, features: Tensor, choices: int) -> Tensor:
    """Return flip points minus features (B,T,d); 0 where there is none or the head disagrees."""
    head = search.view.head.to(features.device)
    usable = torch.isfinite(features).all(dim=1) & head.domain.contains(features)
    rows = usable.nonzero()[:, 0]
    rows = rows[head.predict(features[rows]) == search.source[rows]]
    if search.target is None:
        targets = _nearest(head, features[rows], search.source[rows], choices)
    else:
        targets = search.target[rows, None]
    way = features.new_zeros(len(features), targets.shape[1], features.shape[1])
    flips = DualNewton().find(
        head, features[rows], targets=targets, tolerance=FLIP_RTOL, max_steps=100
    )
    way[rows] = torch.nan_to_num(flips.points - features[rows, None])
    return way


def _nearest(head: LinearHead, z: Tensor, source: Tensor, choices: int) -> Tensor:
    """Return the classes (B,T) with the nearest hyperplanes, nearest first."""
    logits = head.logits(z)
    gaps = logits.gather(1, source[:, None]) - logits
    norms = torch.linalg.vector_norm(head.weight[source][:, None] - head.weight, dim=2)
    ratio = torch.nan_to_num(gaps / norms, nan=torch.inf).scatter(1, source[:, None], torch.inf)
    return ratio.topk(min(choices, head.num_classes - 1), dim=1, largest=False).indices


_FEW_PIXELS, _DIRECTIONS = 16, 32
"""Images of so few pixels are also searched in so many random directions."""
_AROUND, _ROUNDS = 16, 10
"""And so many times in so many directions around the best, where any class will do."""
_DAMPING = 0.2, 0.05
"""Of the last refinement."""


@final
@dataclass(frozen=True, slots=True)
class FeatureGuided(ImageBoundaryFinder):
    """Choose a place on the boundary by a broad descent, then slide to the nearest point.

    The descent starts from the exact flip points of the features, for the nearest classes, each
    pulled back to pixels by one gradient: from the one that seems nearest in pixels. It keeps the
    length of the change apart, inside the shortest known (:func:`descend_inside`). What it finds
    is refined by successive linearisations with projection (:func:`slide`) and bracketed onto
    the boundary. With a chosen target, rows that came across far from the tie look for the tie
    itself in a second round, and the better of both is taken. Rows that the descent does not
    bring across are led there by lowering the gap bit by bit.

    Parameters
    ----------
    choices : int
        How many classes compete for the first image; a tenth of the gradients at most.
    stride : float
        First length of a gradient step of a round, in lengths of the change.
    shrink, grow : float
        Share by which the length of the change falls or grows in a step.
    rounds : tuple of float
        Shares of the descent's gradients; in each round steps are large first, and all but the
        first begin at the clean image.
    last : float
        Share of the gradients for the last refinement; with a chosen target, a quarter of it
        after the first round.
    """

    choices: int = 3
    stride: float = 6.0
    shrink: float = 0.1
    grow: float = 0.05
    rounds: tuple[float, ...] = (0.6, 0.4)
    last: float = 0.15

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
        """Propose the best image of at most `max_steps` gradients (see :func:`slide`)."""
        search = ImageSearch(view, images, targets, bounds, norm)
        choices = max(1, min(self.choices, max_steps // 10))
        start = pulled_back(search, choices)
        if max_steps > int(search.num_backwards.max()):
            # where the body is linear this is the answer already
            settle(search, search.all_rows, start, search.slope(search.all_rows, start))
        rest = max_steps - int(search.num_backwards.max())
        last = math.ceil(self.last * rest)
        telling = 0 if search.target is None else last // 4
        low, high = search.box
        # in the largest-pixel norm, a change of all pixels that has this L2 norm
        share = 1.0 if norm == "l2" else search.clean.shape[1] ** -0.5
        change, lost = search.best - search.clean, search.all_rows[:0]
        first = search.set_aside(lost)  # none yet
        ends = [round(end * (rest - last)) for end in (0.0, *accumulate(self.rounds))]
        for k, (begin, end) in enumerate(pairwise(ends)):
            if k == 1 and search.target is not None:
                slide(search, _across(search), telling)
                lost = (~search.tied).nonzero()[:, 0]
                first = search.set_aside(lost)
                search.near_tie[lost] = True
                change[lost] = start[lost] - search.clean[lost]
            descend_inside(
                search,
                end - begin,
                change,
                radius=(high - low) * share,
                stride=self.stride,
                shrink=self.shrink,
                grow=self.grow,
            )
            # from another side
            change = torch.zeros_like(change)
        found = _across(search)
        if search.clean.shape[1] <= _FEW_PIXELS:
            ring(search, found, _DIRECTIONS)
        _slide_both(search, lost, first, last - telling)
        slide(search, found[~torch.isin(found, lost)], last - telling, damping=_DAMPING)
        if search.clean.shape[1] <= _FEW_PIXELS and search.target is None:
            stir(search, found, _AROUND, _ROUNDS)
        rows = torch.isinf(search.distance).nonzero()[:, 0]
        self._hard_rows(search, rows, start, last)
        return search.answer(*bracket(search))

    def _hard_rows(self, search: ImageSearch, rows: Tensor, start: Tensor, steps: int) -> None:
        """Find anything across for rows without, then slide with the gradients that are left."""
        open_rows = rows
        lead_across(search, open_rows, steps // 2)
        open_rows = open_rows[torch.isinf(search.distance[open_rows])]
        # twice the linear estimate, and then whatever may be of another class
        ahead = search.clean + 2 * (start - search.clean)
        scan(search, open_rows, ahead[open_rows].clamp(*search.box), 8)
        for ends in probes(search, rows):
            left = torch.isinf(search.distance[rows])
            scan(search, rows[left], ends[left], 8)
        rows = rows[torch.isfinite(search.distance[rows])]
        slide(search, rows, steps - steps // 2)


def _across(search: ImageSearch) -> Tensor:
    return torch.isfinite(search.distance).nonzero()[:, 0]


def _slide_both(
    search: ImageSearch, rows: Tensor, first: tuple[Tensor, Tensor, Tensor], steps: int
) -> None:
    """Slide from both images of `rows`, the best and the one set aside."""
    for _ in range(2):
        slide(search, rows[torch.isfinite(search.distance[rows])], steps, damping=_DAMPING)
        second = search.set_aside(rows)
        search.recall(rows, first)
        first = second
    search.recall(rows, first)


def lead_across(search: ImageSearch, rows: Tensor, steps: int) -> None:
    """Lower the gap of rows bit by bit from that of the clean image to below 0."""
    x = search.clean[rows].clone()
    first: Tensor | None = None
    for step in range(steps):
        if len(rows) == 0:
            return
        slope = search.slope(rows, x)
        first = slope.gap if first is None else first
        height = first * (1 - 1.2 * (step + 1) / steps)
        x, _ = linearised(search, rows, x, slope, height)
        gap, slack = search.gaps(rows, search.logits(rows, x))
        search.keep(rows, x, gap, slack)
        going = torch.isinf(search.distance[rows])
        rows, x, first = rows[going], x[going], first[going]
