"""Bootstrap intervals of means over images.

Structural similarity of two attributions (Wang et al. 2004, "Image quality assessment").

How far two attributions of the same images agree: one number an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.stats import kendalltau, rankdata
from torch import Tensor
from torch.nn.functional import avg_pool2d


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


WINDOW = 7
"""Side of the square, uniform window; smaller images take the largest odd side that fits."""

_RANGE = 2.0  # of values from -1 to 1
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # the paper's K1 and K2


def to_unit_range(a: Tensor) -> Tensor:
    """Return each image of `a` (B,C,H,W) divided by the size of its largest entry."""
    return a / a.abs().amax(dim=(1, 2, 3), keepdim=True)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM (B,) of images (B,C,H,W) with values from -1 to 1.

    The mean runs over all windows that lie inside the image, and over the channels. Variances
    are those of the window itself (divided by the number of its pixels).
    """
    side = min(WINDOW, a.shape[2], a.shape[3])
    side -= 1 - side % 2

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, side, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    # what rounding leaves of a variance may be below 0
    var_a = (mean(a * a) - mean_a**2).clamp_min(0.0)
    var_b = (mean(b * b) - mean_b**2).clamp_min(0.0)
    covariance = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    shape = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return torch.mean(light * shape, dim=(1, 2, 3))


METRICS = ("cosine", "spearman", "kendall", "top_k", "ssim", "sign")
"""Names of the metrics, in the order in which they are reported."""


class Metric(NamedTuple):
    """What is done once to each attribution (B,C,H,W), and then to each pair, giving (B,)."""

    prepare: Callable[[Tensor], Tensor]
    pair: Callable[[Tensor, Tensor], Tensor]


def metric(name: str, top_share: float) -> Metric:
    """Return the metric `name`; `top_share` of the entries are the largest for "top_k"."""
    return {
        "cosine": Metric(_unit, _dot),
        "spearman": Metric(_unit_ranks, _dot),
        "kendall": Metric(_flat, _kendall),
        "top_k": Metric(lambda a: _top(a, top_share), _shared),
        "ssim": Metric(to_unit_range, similarity),
        "sign": Metric(lambda a: _flat(a).sign(), _same_sign),
    }[name]


def all_pairs(chosen: Metric, attributions: Tensor) -> Tensor:
    """Return the values (B,M,M), symmetric, for attributions (M,B,C,H,W) in float64.

    NaN where a metric has no value, and wherever an attribution is zero or not finite.
    """
    flat = attributions.flatten(2)
    known = torch.isfinite(flat).all(dim=2) & (flat != 0).any(dim=2)
    usable = torch.where(known[..., None, None, None], attributions, 0.0)
    ready = [chosen.prepare(a) for a in usable]
    count = len(ready)
    out = attributions.new_full((attributions.shape[1], count, count), torch.nan)
    for i in range(count):
        for j in range(i, count):
            value = chosen.pair(ready[i], ready[j])
            value = torch.where(known[i] & known[j], value, torch.nan)
            out[:, i, j] = out[:, j, i] = value
    return out


def _flat(a: Tensor) -> Tensor:
    return a.flatten(1)


def _unit(a: Tensor) -> Tensor:
    """Return rows of length 1; NaN for zero rows."""
    # by the largest entry first, so that no square overflows or vanishes
    flat = _flat(a)
    flat = flat / flat.abs().amax(dim=1, keepdim=True)
    unit: Tensor = flat / flat.norm(dim=1, keepdim=True)
    return unit


def _unit_ranks(a: Tensor) -> Tensor:
    """Return the centred ranks, ties sharing their mean rank, as rows of length 1."""
    ranks = torch.as_tensor(rankdata(_flat(a).cpu().numpy(), axis=1), device=a.device)
    return _unit(ranks - ranks.mean(dim=1, keepdim=True))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1).clamp(-1.0, 1.0)


def _kendall(a: Tensor, b: Tensor) -> Tensor:
    """Return Kendall's tau-b of each row."""
    # the exact p-value, which nobody asked for, would take longer than tau itself
    found = [
        float(kendalltau(x, y, method="asymptotic").statistic)
        for x, y in zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    ]
    return torch.tensor(found, dtype=a.dtype, device=a.device)


def _top(a: Tensor, share: float) -> Tensor:
    """Return how far each entry is among the largest by size, summing to 1 over a row.

    Entries that tie with the last place share the places that are left.
    """
    size = _flat(a).abs()
    k = max(1, round(share * size.shape[1]))
    last = size.topk(k, dim=1).values[:, -1:]
    above, tied = (size > last).to(a.dtype), (size == last).to(a.dtype)
    left = k - above.sum(dim=1, keepdim=True)
    return (above + tied * left / tied.sum(dim=1, keepdim=True)) / k


def _shared(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b).sum(dim=1)


def _same_sign(a: Tensor, b: Tensor) -> Tensor:
    """Return the share of equal signs among the entries that are not 0 in both."""
    asked = (a != 0) | (b != 0)
    same: Tensor = (asked & (a == b)).sum(dim=1) / asked.sum(dim=1).to(torch.float64)
    return same
