"""Leave-one-out p-values, thresholds per class, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.checks import check_float_tensor, check_number
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results.scores import OPEN, SUSPICIOUS, USUAL
from fsboundary.core.rows import from_array


@final
@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Scores of reference rows, each compared with all others, and their classes.

    Attributes
    ----------
    scores : Tensor (M,), float64
        Upper limits of the scores; no NaN.
    labels : Tensor (M,)
        Class of each row.
    """

    scores: Tensor
    labels: Tensor

    def sorted_scores(self, label: int, pooled: bool) -> Tensor:
        """Return the scores of a class, or of all classes, ascending."""
        chosen = self.scores if pooled else self.scores[self.labels == label]
        return chosen.sort().values

    def p_values(self, lower: Tensor, labels: Tensor, pooled: bool) -> Tensor:
        """Return (1 + number of reference scores >= `lower`) / (n + 1) for each row, (B,).

        From the lower limit of a row and the upper limits of the reference, so never less than the
        p-value of exact distances.
        """
        p = torch.full_like(lower, torch.nan)
        for label in labels.unique().tolist():
            rows = labels == label
            known = self.sorted_scores(label, pooled)
            below = torch.searchsorted(known, lower[rows].contiguous())
            count = (len(known) - below).to(torch.float64)
            p[rows] = (1 + count) / (len(known) + 1)
        return torch.where(lower.isnan(), torch.nan, p)

    def thresholds(self, level: Tensor, labels: Tensor, pooled: bool) -> Tensor:
        """Return the largest score (B,) that is not suspicious at the `level` (K,) of its class.

        A row's p-value is at most the level exactly if its lower limit is above this score. It is
        +inf where the class has too few reference rows for a p-value as small.
        """
        threshold = torch.full(labels.shape, torch.inf, dtype=torch.float64)
        for label in labels[labels >= 0].unique().tolist():
            known = self.sorted_scores(label, pooled)
            # p is at most the level if no more than `allowed` reference scores are as large; by
            # the same division as p, so that rounding cannot part the two
            counts = torch.arange(1, len(known) + 1, dtype=torch.float64)
            allowed = int((counts / (len(known) + 1) <= level[label]).sum()) - 1
            if allowed >= 0:
                threshold[labels == label] = known[len(known) - 1 - allowed]
        return threshold


def check_per_class(
    name: str, value: object, num_classes: int, low: float, high: float, example: str
) -> Tensor:
    """Return `value`, one number or one per class, as (K,) float64, or raise ArgumentError."""
    value = from_array(value)
    value = torch.tensor(value) if isinstance(value, list | tuple) else value
    fix = f"pass {example}, for example, or one number per class"
    if not isinstance(value, Tensor) or value.ndim == 0:
        number = check_number(name, value, low, high, fix=fix)
        return torch.full((num_classes,), number, dtype=torch.float64)
    numbers = check_float_tensor(name, value, (num_classes,), fix=fix).cpu().to(torch.float64)
    if not bool(((numbers > low) & (numbers < high)).all()):
        got = f"numbers from {float(numbers.min())} to {float(numbers.max())}"
        raise ArgumentError(name, got, f"numbers between {low} and {high}", fix)
    return numbers


def judge(score: Tensor, lower: Tensor, upper: Tensor, threshold: Tensor) -> Tensor:
    """Return the verdicts (B,): suspicious above the threshold, usual at most at it, else open.

    By the certified limits, or by the score where there are none.
    """
    lower = torch.where(lower.isnan(), score, lower)
    upper = torch.where(upper.isnan(), score, upper)
    verdict = torch.full(score.shape, OPEN)
    verdict[upper <= threshold] = USUAL
    verdict[lower > threshold] = SUSPICIOUS
    # no score is above +inf: the class has too few reference rows, which says nothing
    verdict[(threshold == torch.inf) | score.isnan()] = OPEN
    return verdict
