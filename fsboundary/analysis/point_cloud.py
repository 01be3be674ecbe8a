"""Measures of points in one space, the same for pixels and for features."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.hulls import (
    extrapolation,
    hull_separation,
    leave_one_out_distances,
    project_on_hull,
)

_ROWS = 64
"""Rows whose distances to every training point are in memory at a time."""

_NARROW = 128
"""Dimensions up to which the default solver is the faster one, and closes the nearer pairs."""

_WIDE = 4096
"""Most dimensions in which a table of width by width is made ..."""

_MOST = 2**27
"""... and most numbers of all points, of which copies are made: 1 GiB each."""


@final
class Points:
    """Training points with labels, and rows to be measured against them, in one space.

    Parameters
    ----------
    rows : Tensor (B, d)
    train : Tensor (N, d)
    labels : Tensor (N,)
    """

    def __init__(self, rows: Tensor, train: Tensor, labels: Tensor) -> None:
        self.rows, self.train = rows.double(), train.double()
        self.labels = labels
        # hulls need the span of the points alone, and memory for its square
        self._hull_rows, hull_train = _in_their_span(self.rows, self.train)
        self.bank = FeatureBank(hull_train, labels)

    def usual(self, pairs: Tensor) -> float:
        """Return the median distance between training points `pairs` (P,2): a unit of length."""
        apart = self.train[pairs[:, 0]] - self.train[pairs[:, 1]]
        return median(torch.linalg.vector_norm(apart, dim=1))

    def hull(self, yardstick: int, seed: int) -> tuple[Tensor, float]:
        """Return hull distances over the mean leave-one-out distance (B,), and the share inside."""
        found = project_on_hull(self.bank, self._hull_rows)
        own = leave_one_out_distances(self.bank, yardstick, seed=seed)
        if not bool((torch.isfinite(own.distance) & (own.distance > 0)).any()):
            return torch.full_like(found.distance, torch.nan), mean(found.membership == 1)
        return extrapolation(found, own).ratio, mean(found.membership == 1)

    def class_hulls(self) -> tuple[Tensor, Tensor]:
        """Return the distances between the hulls of all pairs of classes, and which are apart.

        Distances (P,) are 0 where hulls meet, NaN where none is certified. The second table (P,)
        has 1 for hulls proved not to meet, 0 for hulls that meet, NaN where that stays open.
        """
        pairs = torch.combinations(self.labels.unique().cpu())
        if len(pairs) == 0:
            return self.train.new_zeros(0), self.train.new_zeros(0)
        width, size = self.bank.num_features, self.bank.num_features * len(self.bank)
        wide = _NARROW < width <= _WIDE and size <= _MOST
        solver = "interior_point" if wide else "active_set"
        found = hull_separation(self.bank, pairs[:, 0], pairs[:, 1], solver=solver)
        distance = torch.where(found.intersect == 1, 0.0, found.distance)
        apart = (found.intersect == -1).double()
        return distance, torch.where(found.intersect == 0, torch.nan, apart)

    def neighbours(self, count: int) -> Tensor:
        """Return the training rows nearest to each row, nearest first, (B,count)."""
        count = min(count, len(self.train))
        parts = [
            torch.cdist(part, self.train).topk(count, largest=False).indices
            for part in self.rows.split(_ROWS)
        ]
        return torch.cat(parts)


def _in_their_span(rows: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in an orthonormal basis of their span where it has fewer dimensions."""
    whole = torch.cat([train, rows])
    if whole.shape[1] > len(whole):
        whole = whole @ torch.linalg.qr(whole.T).Q
    return whole[len(train) :], whole[: len(train)]


def mean(values: Tensor) -> float:
    """Return the mean of `values` that are not NaN; NaN if there are none."""
    return float(values.double().nanmean())


def median(values: Tensor) -> float:
    """Return the median of finite `values`; NaN if there are none."""
    finite = values[torch.isfinite(values)]
    return float(finite.double().quantile(0.5)) if len(finite) else math.nan


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of the entries finite in both; NaN if one is constant."""
    both = torch.isfinite(a) & torch.isfinite(b)
    x, y = a[both].numpy(), b[both].numpy()
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def between(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles in degrees between the rows of `a` and of `b` (B,d), (B,)."""
    a = a.double() / torch.linalg.vector_norm(a.double(), dim=1, keepdim=True)
    b = b.double() / torch.linalg.vector_norm(b.double(), dim=1, keepdim=True)
    # of the half angle, so that rounding near 0 and 180 degrees does no harm
    half = torch.atan2(
        torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1)
    )
    return torch.rad2deg(2 * half)
