"""Boundary points on segments from the clean points, by bracketing."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.search_state import SearchState

_TOLERANCE = 1e-6
"""Fraction of the range of the logits that ends the search; 100 times below what the core needs."""

_MAX_STEPS = 32


@runtime_checkable
class BoundaryFunction(Protocol):
    """Clean rows (B,n), and logits, gaps and the range of the logits at other points."""

    clean: Tensor

    def logits(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return logits (R,K) of `x` (R,n)."""

    def gaps(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return source minus target and the slack to third classes, (R,)."""

    def logit_range(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits that gaps are relative to."""


def bracket(search: SearchState) -> tuple[Tensor, Tensor]:
    """Return images (B,n) where source and target tie, and the mask (B,) of rows that have one.

    From the best image across of each row back along the segment to the clean image.
    """
    rows = torch.isfinite(search.distance).nonzero()[:, 0]
    valid, images = torch.zeros_like(search.all_rows, dtype=torch.bool), search.best.clone()
    images[rows], valid[rows] = crossing(search, rows, search.best[rows], _TOLERANCE)
    return images, valid


def crossing(
    search: BoundaryFunction, rows: Tensor, ends: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return ties (R,n) between the clean rows and `ends` (R,n), and the mask (R,) of valid ones.

    Back from the ends, which are across: steps that grow until they are on the near side, then
    the Illinois rule, halving where rounding stalls it, until the gap is at most `tolerance` of
    the range of the logits.
    """
    points, clean = ends.clone(), search.clean[rows]
    error = torch.full_like(ends[:, 0], torch.inf)
    valid = torch.zeros_like(rows, dtype=torch.bool)
    low, high = torch.ones_like(error), torch.ones_like(error)
    near = torch.full_like(high, torch.nan)
    far = torch.full_like(high, torch.nan)
    left = torch.arange(len(rows), device=rows.device)
    for step in range(_MAX_STEPS):
        if len(left) == 0:
            break
        a, b, fa, fb = low[left], high[left], near[left], far[left]
        back = (1 - 0.01 * 4 ** (step - 1)) if step else 1.0
        secant = b - fb * (b - a) / (fb - fa)
        middle = (a + b) / 2
        inner = (secant > a) & (secant < b) & torch.tensor(step % 4 != 3, device=a.device)
        at = torch.where(torch.isnan(fa), max(back, 0.0), torch.where(inner, secant, middle))
        x = clean[left] + at[:, None] * (ends[left] - clean[left])
        logits = search.logits(rows[left], x)
        gap, slack = search.gaps(rows[left], logits)
        relative = gap.abs() / search.logit_range(rows[left], logits)
        better = (relative < error[left]) & (slack >= 0)
        chosen = left[better]
        points[chosen], error[chosen], valid[chosen] = x[better], relative[better], True
        across = gap <= 0
        # Illinois: an end that stays twice counts half
        far[left] = torch.where(across, gap, torch.where(torch.isnan(fa), fb, fb / 2))
        near[left] = torch.where(across, fa / 2, gap)
        high[left] = torch.where(across, at, b)
        low[left] = torch.where(across, a, at)
        width = high[left] - low[left]
        stuck = ~torch.isnan(near[left]) & (width <= torch.finfo(width.dtype).eps)
        left = left[~((error[left] <= tolerance) | stuck | (across & (at == 0.0)))]
    return points, valid
