"""Metrics of agreement between two attributions, one number per image, and bootstrap intervals.

Structural similarity follows Wang et al. 2004, "Image quality assessment".
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
        Values per image. NaN entries are excluded, also from the resamples; with fewer than two
        other entries the interval is NaN.
    resamples : int
        Number of resamples of B images, with replacement; the same for all entries.
    confidence : float
        Fraction of the resampled means inside the interval.
    seed : int
        Seed of a separate generator.
    """
    count, rows, methods, _ = per_image.shape
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(max(rows, 1), (resamples, rows), generator=generator)
    counts = torch.zeros_like(indices).scatter_add_(1, indices, torch.ones_like(indices))
    counts = counts.to(per_image)
    edges = per_image.new_tensor([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = per_image.new_empty(2, count, methods, methods)
    for q, values in enumerate(per_image):
        known = torch.isfinite(values)
        total = torch.einsum("rb,bij->rij", counts, torch.where(known, values, 0.0))
        means = total / torch.einsum("rb,bij->rij", counts, known.to(counts))
        interval = torch.nanquantile(means, edges, dim=0)
        # a single image carries no information about the spread
        low[q], high[q] = torch.where(known.sum(dim=0) > 1, interval, torch.nan)
    return per_image.nanmean(dim=1), low, high


WINDOW = 7
"""Side of the square, uniform window; for smaller images, the largest odd side that fits."""

_RANGE = 2.0  # of values from -1 to 1
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # the paper's K1 and K2


def _to_unit_range(a: Tensor) -> Tensor:
    """Return each image of `a` (B,C,H,W) divided by the size of its largest entry."""
    return a / a.abs().amax(dim=(1, 2, 3), keepdim=True)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM (B,) of images (B,C,H,W) with values from -1 to 1.

    The mean is taken over all windows inside the image and over the channels. Variances are
    population variances of a window (divided by the number of its pixels).
    """
    side = min(WINDOW, a.shape[2], a.shape[3])
    side -= 1 - side % 2

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, side, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    # a variance may be slightly negative because of rounding
    var_a = (mean(a * a) - mean_a**2).clamp_min(0.0)
    var_b = (mean(b * b) - mean_b**2).clamp_min(0.0)
    covariance = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    shape = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return torch.mean(light * shape, dim=(1, 2, 3))


METRICS = ("cosine", "spearman", "kendall", "top_k", "ssim", "sign")
"""Names of the metrics, in the order in which they are reported."""


class Metric(NamedTuple):
    """A step applied once to each attribution (B,C,H,W), and one for each pair, giving (B,)."""

    prepare: Callable[[Tensor], Tensor]
    pair: Callable[[Tensor, Tensor], Tensor]


def metric(name: str, top_fraction: float) -> Metric:
    """Return the metric `name`; "top_k" compares the largest `top_fraction` of the entries."""
    return {
        "cosine": Metric(_unit, _dot),
        "spearman": Metric(_unit_ranks, _dot),
        "kendall": Metric(_flat, _kendall),
        "top_k": Metric(lambda a: _top_k_weights(a, top_fraction), _overlap),
        "ssim": Metric(_to_unit_range, ssim),
        "sign": Metric(lambda a: _flat(a).sign(), _same_sign),
    }[name]


def all_pairs(chosen: Metric, attributions: Tensor) -> Tensor:
    """Return the values (B,M,M), symmetric, for attributions (M,B,C,H,W) in float64.

    NaN where a metric is undefined, and wherever an attribution is zero or not finite.
    """
    flat = attributions.flatten(2)
    known = torch.isfinite(flat).all(dim=2) & (flat != 0).any(dim=2)
    usable = torch.where(known[..., None, None, None], attributions, 0.0)
    prepared = [chosen.prepare(a) for a in usable]
    count = len(prepared)
    out = attributions.new_full((attributions.shape[1], count, count), torch.nan)
    for i in range(count):
        for j in range(i, count):
            value = chosen.pair(prepared[i], prepared[j])
            value = torch.where(known[i] & known[j], value, torch.nan)
            out[:, i, j] = out[:, j, i] = value
    return out


def _flat(a: Tensor) -> Tensor:
    return a.flatten(1)


def _unit(a: Tensor) -> Tensor:
    """Return rows of length 1; NaN for zero rows."""
    # divide by the largest entry first, so that no square overflows or underflows
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
    # the exact p-value is not needed and would take longer than tau itself
    taus = [
        float(kendalltau(x, y, method="asymptotic").statistic)
        for x, y in zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    ]
    return torch.tensor(taus, dtype=a.dtype, device=a.device)


def _top_k_weights(a: Tensor, fraction: float) -> Tensor:
    """Return the membership weight of each entry in the top k by absolute value, summing to 1.

    Entries that tie for the last places share those places equally.
    """
    size = _flat(a).abs()
    k = max(1, round(fraction * size.shape[1]))
    kth = size.topk(k, dim=1).values[:, -1:]
    above, tied = (size > kth).to(a.dtype), (size == kth).to(a.dtype)
    remaining = k - above.sum(dim=1, keepdim=True)
    return (above + tied * remaining / tied.sum(dim=1, keepdim=True)) / k


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b).sum(dim=1)


def _same_sign(a: Tensor, b: Tensor) -> Tensor:
    """Return the fraction of equal signs among the entries that are not 0 in both."""
    nonzero = (a != 0) | (b != 0)
    same: Tensor = (nonzero & (a == b)).sum(dim=1) / nonzero.sum(dim=1).to(torch.float64)
    return same
