"""Words for what a comparison of attributions shows, chosen by thresholds that the page states."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fsboundary.attr.comparison.metrics import bootstrap
from fsboundary.core.results import Comparison
from fsboundary.report.measurements import SEED

BANDS = {"same": 0.7, "part": 0.4, "weak": 0.1, "none": -0.1}
"""A mean rank correlation of at least so much has this name; any below is "opposite"."""

RESAMPLES = 1000
CONFIDENCE = 0.95


def band(mean: float) -> str | None:
    """Return the name of a mean rank correlation; None for NaN."""
    if math.isnan(mean):
        return None
    return next((name for name, least in BANDS.items() if mean >= least), "opposite")


def side(low: float, high: float, middle: float) -> str:
    """Return "less" or "more" where the interval lies on one side of `middle`, else "unclear"."""
    if high < middle:
        return "less"
    return "more" if low > middle else "unclear"


def kept_margin(curves: Tensor) -> Tensor:
    """Return curves (..., T) of margins within [0, 1]: beyond the boundary nothing is left."""
    return curves.clamp(0.0, 1.0)


def kept_differences(compared: Comparison) -> Tensor:
    """Return how much more margin method j keeps than i over its deletion curve, (B, M, M)."""
    kept = kept_margin(compared.deletion).mean(dim=2).T
    return kept[:, None, :] - kept[:, :, None]


def nearer(compared: Comparison) -> Tensor:
    """Return whether method j meets the boundary nearer than i, 1, 0 or a half, (B, M, M)."""
    crossing = compared.crossing.T
    one, other = crossing[:, None, :], crossing[:, :, None]
    found = (one < other).double() + 0.5 * (one == other).double()
    return torch.where(one.isnan() | other.isnan(), torch.nan, found)


def paired(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of (B, M, M) over the images and its bootstrap interval, each (M, M)."""
    found = bootstrap(values[None], resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)
    mean, low, high = (part[0] for part in found)
    return mean, low, high
