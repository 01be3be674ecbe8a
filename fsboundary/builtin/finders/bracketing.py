"""Onto the boundary: the crossing on the segment from the clean image, bracketed."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.builtin.finders.image_search import ImageSearch

_CLOSE = 1e-6
"""Share of the range of the logits that ends the search; 100 times below what the core asks."""

_TRIES = 24


def bracket(search: ImageSearch) -> tuple[Tensor, Tensor]:
    """Return images (B,n) where source and target tie, and for which rows there is one.

    From the best image across of each row back along the segment to the clean image: steps that
    grow until they are on the near side, then the Illinois rule, halving where rounding stalls it.
    """
    rows = torch.isfinite(search.distance).nonzero()[:, 0]
    found, images = torch.zeros_like(search.all_rows, dtype=torch.bool), search.best.clone()
    error = torch.full_like(search.distance, torch.inf)
    high = torch.ones_like(search.distance)
    low = torch.full_like(high, 1.0)
    near = torch.full_like(high, torch.nan)
    far = torch.full_like(high, torch.nan)
    for step in range(_TRIES):
        if len(rows) == 0:
            break
        a, b, fa, fb = low[rows], high[rows], near[rows], far[rows]
        back = (1 - 0.01 * 4 ** (step - 1)) if step else 1.0
        secant = b - fb * (b - a) / (fb - fa)
        middle = (a + b) / 2
        inner = (secant > a) & (secant < b) & torch.tensor(step % 4 != 3, device=a.device)
        at = torch.where(torch.isnan(fa), max(back, 0.0), torch.where(inner, secant, middle))
        x = search.clean[rows] + at[:, None] * (search.best[rows] - search.clean[rows])
        logits = search.logits(rows, x)
        gap, slack = search.gaps(rows, logits)
        share = gap.abs() / search.span(rows, logits)
        better = (share < error[rows]) & (slack >= 0)
        chosen = rows[better]
        images[chosen], error[chosen], found[chosen] = x[better], share[better], True
        across = gap <= 0
        # Illinois: an end that stays twice counts half
        far[rows] = torch.where(across, gap, torch.where(torch.isnan(fa), fb, fb / 2))
        near[rows] = torch.where(across, fa / 2, gap)
        high[rows] = torch.where(across, at, b)
        low[rows] = torch.where(across, a, at)
        width = high[rows] - low[rows]
        stuck = ~torch.isnan(near[rows]) & (width <= torch.finfo(width.dtype).eps)
        rows = rows[~((error[rows] <= _CLOSE) | stuck | (at == 0.0))]
    return images, found
