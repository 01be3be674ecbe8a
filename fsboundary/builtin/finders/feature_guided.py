"""The default image finder: led by the flip point in feature space, refined in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.builtin.finders.bracketing import bracket
from fsboundary.builtin.finders.descent import descend
from fsboundary.builtin.finders.image_search import ImageSearch
from fsboundary.builtin.finders.pull_back import pulled_back
from fsboundary.builtin.finders.segments import probes, ring, scan, stir
from fsboundary.builtin.finders.sliding import linearised, settle, slide
from fsboundary.interfaces import ImageBoundaryFinder
from fsboundary.protocols import ModelView
from fsboundary.results import FlipImages

_FEW_PIXELS, _DIRECTIONS = 16, 32
"""Images of so few pixels are also searched in so many random directions."""
_AROUND, _ROUNDS = 16, 10
"""And so many times in so many directions around the best, where any class will do."""


@final
@dataclass(frozen=True, slots=True)
class FeatureGuided(ImageBoundaryFinder):
    """Choose places on the boundary by two broad descents, then slide to the nearest point.

    One descent starts from the exact flip points of the features, for the nearest classes, each
    pulled back to pixels by one gradient: from the one that seems nearest in pixels. The other
    starts from the clean image. Both keep the length of the change apart (:func:`descend`), and
    each is refined by successive linearisations with projection (:func:`slide`); the better of
    the two is refined further, and bracketed onto the boundary. Rows that no descent brings
    across are led there by lowering the gap bit by bit.

    Parameters
    ----------
    choices : int
        How many classes compete for the first step; a tenth of the gradients at most.
    radius : float
        First L2 length of the change and of a gradient step, times the width of the bounds.
    rate : float
        Share by which the length changes in a step.
    last : float
        Share of the gradients for the last refinement.
    """

    choices: int = 9
    radius: float = 1.0
    rate: float = 0.1
    last: float = 0.25

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
        if max_steps > int(search.evaluations.max()):
            # where the body is linear this is the answer already
            settle(search, search.all_rows, start, search.slope(search.all_rows, start))
        rest = max_steps - int(search.evaluations.max())
        last = math.ceil(self.last * rest)
        one = (rest - last) // 2
        low, high = search.box
        # in the largest-pixel norm, a change of all pixels that has this L2 norm
        share = 1.0 if norm == "l2" else search.clean.shape[1] ** -0.5
        size = self.radius * (high - low) * share
        kept = search.forget()
        for first in (start, search.clean):
            refining = one // 7
            change = first - search.clean
            descend(search, one - refining, change, radius=size, stride=size, rate=self.rate)
            slide(search, _across(search), refining)
            search.recall(kept)
            kept = search.forget()
        search.recall(kept)
        found = _across(search)
        if search.clean.shape[1] <= _FEW_PIXELS:
            ring(search, found, _DIRECTIONS)
        slide(search, found, last, damping=(0.2, 0.05))
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
