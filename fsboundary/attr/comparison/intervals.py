"""Bootstrap intervals of means over images."""

from __future__ import annotations

import torch
from torch import Tensor


def bootstrap(
    per_image: Tensor, *, resamples: int, confidence: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean over the images and its percentile interval, each (Q,M,M).

    Parameters
    ----------
    per_image : Tensor (Q, B, M, M), float64
        NaN entries are left out, also from the resamples. The interval of fewer than two others
        is NaN.
    resamples : int
        How often B images are drawn with replacement; the draws are the same for all entries.
    confidence : float
        Share of the resampled means inside the interval.
    seed : int
        Of a generator of its own.
    """
    count, rows, methods, _ = per_image.shape
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(max(rows, 1), (resamples, rows), generator=generator)
    counts = torch.zeros(resamples, rows).scatter_add_(1, drawn, torch.ones(resamples, rows))
    counts = counts.to(per_image)
    edges = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2]).to(per_image)
    low, high = per_image.new_empty(2, count, methods, methods)
    for q, values in enumerate(per_image):
        known = torch.isfinite(values)
        total = torch.einsum("rb,bij->rij", counts, torch.where(known, values, 0.0))
        means = total / torch.einsum("rb,bij->rij", counts, known.to(counts))
        interval = torch.nanquantile(means, edges, dim=0)
        # a single image says nothing of how images differ
        low[q], high[q] = torch.where(known.sum(dim=0) > 1, interval, torch.nan)
    return per_image.nanmean(dim=1), low, high
