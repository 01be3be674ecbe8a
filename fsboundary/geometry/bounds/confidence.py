"""Bounds of probabilities and quantiles from samples, at a chosen confidence.

The functions of scipy are computed to some units in the last place. Probabilities are moved outward
by far more than that before they are used, which costs nothing that a user could notice.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import special
from torch import Tensor

_SLACK = 1e-9
"""Relative change of probabilities. Those of scipy differ from sums of 40 digits by less than 1e-15
for up to 10 million samples; older versions use other algorithms, which are less accurate."""


def lower_probability(hits: Tensor, total: int, alpha: float) -> Tensor:
    """Return lower bounds (B,) of a probability, float64, from how often an event came.

    Each is above the probability in a fraction of at most `alpha` of all samples (Clopper and
    Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 1934).

    Parameters
    ----------
    hits : Tensor (B,)
        How often the event came, from 0 to `total`.
    total : int
        Number of independent samples.
    alpha : float
        Probability of error, in (0, 1).
    """
    k = hits.cpu().numpy().astype(np.float64)
    # the probability at which as many hits or more come with probability alpha; none without hits
    found = special.betaincinv(np.maximum(k, 1.0), total - k + 1.0, alpha)
    return torch.from_numpy(np.where(k > 0, found * (1 - _SLACK), 0.0)).to(hits.device)


def gaussian_shift(probability: Tensor) -> Tensor:
    """Return by how many standard deviations a Gaussian may move, (B,), float64.

    A set that has `probability` (B,) under a Gaussian has at least 1/2 under one whose mean is
    nearer than that: the quantile of the standard normal. It is negative below 1/2.
    """
    found: Tensor = torch.special.ndtri(probability.to(torch.float64))
    return found


def quantile_rank(shift: float, total: int, alpha: float) -> int:
    """Return how many of the smallest and of the largest of `total` samples bound the median.

    With the result k > 0: of independent samples of a function under a Gaussian, the k-th smallest
    and the k-th largest enclose the medians of that function under all Gaussians whose mean is
    within `shift` standard deviations, in a fraction of at least 1 - `alpha` of all samples
    (Chiang et al., "Detection as regression: certified object detection with median smoothing",
    NeurIPS 2020). With 0, no sample does.

    Parameters
    ----------
    shift : float
        Standard deviations, at least 0.
    total : int
    alpha : float
        Probability of error of both ends together, in (0, 1).
    """
    # The k-th smallest is above the quantile of this probability if fewer than k samples are at
    # most that quantile; each is with this probability or a larger one.
    probability = float(special.ndtr(-shift)) * (1 - _SLACK)
    fewer = special.bdtr(np.arange(total), total, probability)
    return int((fewer * (1 + _SLACK) <= alpha / 2).sum())
