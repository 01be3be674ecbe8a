"""Results of scores: how suspicious rows are, an estimated accuracy, and drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status

SUSPICIOUS, OPEN, USUAL = 1, 0, -1
"""Verdicts of a row."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Scores(Result):
    """How suspicious B rows are: larger is more suspicious, in every score.

    Attributes
    ----------
    name : str
        Name of the score and its formula.
    score : Tensor (B,), float64
        Larger is more suspicious; NaN where the row failed, +inf where a class has no training rows
        to compare with.
    lower, upper : Tensor (B,), float64
        Certified bracket of the score, rounded outward; NaN where the row failed or the score is
        not made of certified distances.
    value : Tensor (B,), float64
        The quantity that the score is made of, in its usual direction and units.
    p_value : Tensor (B,), float64
        Leave-one-out p-value, (1 + number of reference scores that may be as large) / (n + 1); NaN
        where the row failed or there is no reference.
    threshold : Tensor (B,), float64
        Score above which a row of this class is suspicious; +inf where the class has too few
        reference rows for the level, NaN where there is no threshold.
    label : Tensor (B,)
        Class that the row is compared with; -1 where it has none.
    other : Tensor (B,)
        Next class: that of the nearest other hull or region, or the suggested label; -1 where the
        score has none.
    support : Tensor (B, 3)
        Training rows that are the reason, by their positions in the training data, the weightiest
        first; -1 as padding.
    verdict : Tensor (B,)
        1 suspicious, -1 usual, 0 open: the bracket contains the threshold, or there is none.
    status : Tensor (B,)
        CONVERGED; INFEASIBLE where a class has no training rows; or why the row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    ...     _ = head.bias.zero_()
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> generator = torch.Generator().manual_seed(0)
    >>> means = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    >>> rows = means + torch.rand(40, 2, generator=generator)
    >>> labels = torch.arange(40) % 2
    >>> reference = fsb.Reference.fit(space, [(rows, labels)], "given")
    >>> found = fsb.scores.novelty(reference, torch.tensor([[2.5, 0.5], [2.5, -9.0]]))
    >>> found.verdicts, (found.lower <= found.upper).tolist()
    (['usual', 'suspicious'], [True, True])
    """

    direction: ClassVar[str] = "larger is more suspicious"
    """Direction of every score."""

    name: str
    score: Float64[Tensor, " B"]
    lower: Float64[Tensor, " B"]
    upper: Float64[Tensor, " B"]
    value: Float64[Tensor, " B"]
    p_value: Float64[Tensor, " B"]
    threshold: Float64[Tensor, " B"]
    label: Int[Tensor, " B"]
    other: Int[Tensor, " B"]
    support: Int[Tensor, "B S"]
    verdict: Int[Tensor, " B"]
    status: Int[Tensor, " B"]

    @property
    def verdicts(self) -> list[str]:
        """Verdict of each row in words."""
        rows = zip(
            self.verdict.tolist(),
            self.ok.tolist(),
            self.threshold.tolist(),
            self.status.tolist(),
            strict=True,
        )
        return [_in_words(*row) for row in rows]

    def _verdicts(self) -> dict[str, list[str]]:
        return {"verdict": self.verdicts}


def _in_words(verdict: int, ok: bool, threshold: float, status: int) -> str:
    """Return the verdict of one row in words."""
    if not ok:
        return f"not scored ({Status(status).name})"
    if verdict == OPEN and threshold == float("inf"):
        return "open: too few reference rows of this class"
    if verdict == OPEN and threshold != threshold:
        return "open: no threshold"
    words = {SUSPICIOUS: "suspicious", USUAL: "usual", OPEN: "open: within the bracket"}
    return words[verdict]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AccuracyEstimate(Result):
    """Accuracy of a model on rows without labels, estimated from their distances.

    Attributes
    ----------
    accuracy : Tensor (), float64
        Estimated fraction of correct predictions among the rows that did not fail.
    lower, upper : Tensor (), float64
        The same fraction with every row at the two ends of its certified bracket.
    interval : Tensor (2,), float64
        95 % Wilson interval of the fraction: it covers the draw of these rows only, not the error
        of the method, which docs/scores.md reports.
    threshold : Tensor (), float64
        Ratio of the distances to the nearest boundary and to the hull of the predicted class, at
        or above which a row counts as correct.
    source_accuracy : Tensor (), float64
        Accuracy on the labelled rows that set the threshold.
    num_rows, num_failed : Tensor ()
        Number of rows, and of those among them that failed and are left out.
    status : Tensor ()
        CONVERGED, or UNDECIDED if every row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    ...     _ = head.bias.zero_()
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> generator = torch.Generator().manual_seed(0)
    >>> means = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    >>> rows = means + torch.rand(40, 2, generator=generator)
    >>> labels = torch.arange(40) % 2
    >>> reference = fsb.Reference.fit(space, [(rows, labels)], "given")
    >>> given = labels.clone()
    >>> given[0] = 1  # a wrong label, so that the model is not right about all
    >>> estimate = fsb.scores.estimate_accuracy(reference, rows, validation=(rows, given))
    >>> int(estimate.num_rows), bool(estimate.lower <= estimate.upper)
    (40, True)
    """

    accuracy: Float64[Tensor, ""]
    lower: Float64[Tensor, ""]
    upper: Float64[Tensor, ""]
    interval: Float64[Tensor, " 2"]
    threshold: Float64[Tensor, ""]
    source_accuracy: Float64[Tensor, ""]
    num_rows: Int[Tensor, ""]
    num_failed: Int[Tensor, ""]
    status: Int[Tensor, ""]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Drift(Result):
    """Comparison of a set of rows with the rows of a reference: larger is more suspicious.

    Attributes
    ----------
    score : Tensor (), float64
        Kolmogorov-Smirnov statistic of the ratios of the mean distance to the other regions and
        the distance to the hull of the predicted class, between the two sets: 0 to 1.
    p_value : Tensor (), float64
        Probability of a statistic as large for two samples of one distribution.
    median, reference_median : Tensor (), float64
        Median ratios of the two sets.
    verdict : Tensor ()
        1 drifted: the p-value is at most the level; -1 otherwise; 0 if every row failed.
    num_rows, num_failed, num_reference : Tensor ()
        Number of rows, of those among them that failed and are left out, and of reference rows.
    status : Tensor ()
        CONVERGED, or UNDECIDED if every row failed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    ...     _ = head.bias.zero_()
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> generator = torch.Generator().manual_seed(0)
    >>> means = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    >>> rows = means + torch.rand(40, 2, generator=generator)
    >>> labels = torch.arange(40) % 2
    >>> reference = fsb.Reference.fit(space, [(rows, labels)], "given")
    >>> more = means + torch.rand(40, 2, generator=generator)
    >>> drift = fsb.scores.drift(reference, more)
    >>> drift.words, int(drift.num_rows)
    ('no drift found', 40)
    """

    direction: ClassVar[str] = "larger is more suspicious"
    """Direction of the score."""

    score: Float64[Tensor, ""]
    p_value: Float64[Tensor, ""]
    median: Float64[Tensor, ""]
    reference_median: Float64[Tensor, ""]
    verdict: Int[Tensor, ""]
    num_rows: Int[Tensor, ""]
    num_failed: Int[Tensor, ""]
    num_reference: Int[Tensor, ""]
    status: Int[Tensor, ""]

    @property
    def words(self) -> str:
        """Verdict in words."""
        return {1: "drifted", -1: "no drift found", 0: "not scored"}[int(self.verdict)]

    def _verdicts(self) -> dict[str, list[str]]:
        return {"verdict": [self.words]}
