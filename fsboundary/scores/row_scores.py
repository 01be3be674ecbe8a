"""Scores of rows: novelty, trust and label issues; larger is more suspicious."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.core.checks import (
    check_choice,
    check_instance,
    check_integer_tensor,
    check_labels,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FeatureBatch, Scores
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import OK_CODES
from fsboundary.modes import in_standard_modes
from fsboundary.scores.conformal import Distribution, check_per_class, judge
from fsboundary.scores.formulas import (
    KINDS,
    label_doubt_of,
    label_issue_of,
    novelty_of,
    trust_of,
)
from fsboundary.scores.measures import Measure
from fsboundary.scores.reference import Reference

_LEVEL = 0.05
Numbers = float | Sequence[float] | TensorOrArray


@in_standard_modes
def novelty(
    reference: Reference,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    level: Numbers = _LEVEL,
    threshold: Numbers | None = None,
    pooled: bool = False,
) -> Scores:
    """Return how far each row lies from the training rows of its predicted class, by direction.

    The score is the distance of ``z / |z|`` to the hull of the normalised features of the class: 0
    inside, larger is more novel. ``value`` is the same number.

    Parameters
    ----------
    reference : Reference
    features : FeatureBatch, or Tensor or array (B, d)
        Rows, of the space of the reference. A batch carries the model's predictions; those of a
        tensor are computed from the head.
    leave_out : Tensor or array (B,), optional
        Position of each row in the training data, if it belongs to these; -1 if not. Such a row,
        and all its exact copies, are left out of the hulls.
    level : float, or one per class (K,)
        p-value up to which a row is suspicious.
    threshold : float, or one per class (K,), optional
        Score above which a row is suspicious, in place of `level`.
    pooled : bool
        Whether a row is compared with the reference rows of all classes, instead of those of its
        class, for example because classes have few rows.

    Returns
    -------
    Scores
        ``label`` is the predicted class. DEGENERATE where all features are 0.

    Raises
    ------
    ArgumentError
        Wrong types, shapes, positions or thresholds, before any work.
    HeadMismatchError
        A batch of another space than that of the reference.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> rows = torch.tensor([[3.0, 0.0], [3.0, 3.0], [0.0, 3.0], [-3.0, 0.0]])
    >>> reference = fsb.Reference.fit(space, [(rows, torch.tensor([0, 0, 1, 1]))], "given")
    >>> found = fsb.scores.novelty(reference, torch.tensor([[4.0, 0.0], [4.0, -3.0]]))
    >>> [round(s, 3) for s in found.score.tolist()]
    [0.0, 0.632]
    """
    call = _Call(reference, features, leave_out, level, threshold, pooled)
    found = novelty_of(reference, call.z, call.predicted, call.rows)
    return call.result(
        "novelty: distance of z / |z| to the hull of the predicted class",
        found,
        reference.distribution("novelty"),
        call.predicted,
        found.value,
    )


@in_standard_modes
def trust(
    reference: Reference,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    level: Numbers = _LEVEL,
    threshold: Numbers | None = None,
    pooled: bool = False,
) -> Scores:
    """Return how little each prediction is to be trusted, by the nearest hulls.

    With a the distance to the hull of the predicted class and b that to the nearest other hull,
    the trust is b / (a + b), in ``value``. The score is 1 minus it, a / (a + b): 0 inside the own
    hull, above ½ where another hull is nearer, ½ inside both.

    Parameters
    ----------
    reference, features, leave_out, level, threshold, pooled
        As for :func:`novelty`.

    Returns
    -------
    Scores
        ``label`` is the predicted class, ``other`` that of the nearest other hull, and ``support``
        are rows of the other class.

    Raises
    ------
    ArgumentError, HeadMismatchError
        As for :func:`novelty`.

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
    >>> found = fsb.scores.trust(reference, torch.tensor([[2.5, 0.5], [1.5, 1.4]]))
    >>> found.verdicts
    ['usual', 'suspicious']
    """
    call = _Call(reference, features, leave_out, level, threshold, pooled)
    found = trust_of(reference, call.z, call.predicted, call.rows)
    return call.result(
        "trust: a / (a + b), which is 1 - trust",
        found,
        reference.distribution("trust"),
        call.predicted,
        1 - found.value,
    )


@in_standard_modes
def label_issues(
    reference: Reference,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    labels: Int[TensorOrArray, " B"] | Sequence[int],
    *,
    kind: str = "margin",
    leave_out: Int[TensorOrArray, " B"] | None = None,
    level: Numbers = _LEVEL,
    threshold: Numbers | None = None,
    pooled: bool = False,
) -> Scores:
    """Return how likely each given label is wrong, by hulls of the rows with confirmed labels.

    In two stages. When the reference was fitted, the rows of each class were kept whose label a
    cross-validated prediction confirms with a probability above ½. A row is compared with the
    hulls of these rows: with a the distance to the hull of its label and b that to the nearest
    other hull, the hull margin b - a is in ``value``. The score is the mean of two ranks among the
    reference rows: that of a - b, and that of 1 minus the cross-validated probability of the label.

    Parameters
    ----------
    reference : Reference
        Of training data with labels.
    features : FeatureBatch, or Tensor or array (B, d)
    labels : integer Tensor or array (B,), or list
        Given labels; -1 where a row has none, which is UNDECIDED.
    kind : "margin" or "ratio"
        "margin": a - b, for labels that are wrong at random. "ratio": a / (a + b), for classes
        that are confused in pairs; the trust of the label b / (a + b) is in ``value``.
    leave_out, level, threshold, pooled
        As for :func:`novelty`.

    Returns
    -------
    Scores
        ``label`` is the given label, ``other`` the suggested one, and ``support`` are rows of the
        suggested class.

    Raises
    ------
    ArgumentError
        As for :func:`novelty`; labels that are no classes; or a reference without labels.
    HeadMismatchError
        As for :func:`novelty`.

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
    >>> z = torch.tensor([[2.5, 0.5], [2.5, 0.5]])
    >>> fsb.scores.label_issues(reference, z, torch.tensor([0, 1])).verdicts
    ['usual', 'suspicious']
    """
    check_choice("kind", kind, KINDS)
    call = _Call(reference, features, leave_out, level, threshold, pooled)
    given = check_labels(labels, len(call.z), num_classes=reference.num_classes).cpu()
    _require_labels(reference)
    doubt = label_doubt_of(reference, call.z, given, call.rows, kind)
    found = label_issue_of(reference, doubt, call.z, given, call.rows, kind)
    value = -doubt.value if kind == "margin" else 1 - doubt.value
    distribution = reference.distribution(f"label_issues {kind}")
    return call.result(f"label issues, by {kind}", found, distribution, given, value)


def _require_labels(reference: Reference) -> None:
    if bool((reference.given < 0).all()):
        fix = "fit it on (images, labels)"
        raise ArgumentError("reference", "one without labels", "one of labelled rows", fix)


class _Call:
    """Arguments that all scores of rows share, checked, and the result made of a measure."""

    def __init__(
        self,
        reference: object,
        features: object,
        leave_out: object,
        level: object,
        threshold: object,
        pooled: bool,
    ) -> None:
        fix = "pass Reference.fit(space, training_data)"
        self.reference = check_instance("reference", reference, Reference, "a Reference", fix)
        self.z, self.predicted, self._device = self.reference.rows_of(features)
        self.rows = torch.full((len(self.z),), -1)
        if leave_out is not None:
            found = check_integer_tensor(
                "leave_out",
                leave_out,
                (len(self.z),),
                fix="pass one position in the training data per row, -1 for none",
            )
            self.rows = self.reference.sample_rows(found.cpu())
        classes = self.reference.num_classes
        self._level = check_per_class("level", level, classes, 0, 1, "0.05")
        self._threshold = None
        if threshold is not None:
            self._threshold = check_per_class(
                "threshold", threshold, classes, -torch.inf, torch.inf, "0.5"
            )
        self._pooled = check_instance("pooled", pooled, bool, "True or False", "leave it out")

    def result(
        self,
        name: str,
        found: Measure,
        distribution: Distribution,
        labels: Tensor,
        value: Tensor,
    ) -> Scores:
        """Return the scores, on the device of the features."""
        ok = torch.isin(found.status, torch.tensor(OK_CODES))
        score, lower, upper, value = (
            torch.where(ok, one, torch.nan)
            for one in (found.value, found.lower, found.upper, value)
        )
        if self._threshold is None:
            threshold = distribution.thresholds(self._level, labels, self._pooled)
        else:
            threshold = self._threshold[labels.clamp_min(0)]
        threshold = torch.where(ok, threshold, torch.nan)
        support = torch.where(ok[:, None], found.support, -1)
        ids = self.reference.ids[support.clamp_min(0)]
        return Scores(
            name=name,
            score=score,
            lower=lower,
            upper=upper,
            value=value,
            p_value=distribution.p_values(lower, labels, self._pooled),
            threshold=threshold,
            label=labels,
            other=found.other,
            support=torch.where(support >= 0, ids, -1),
            verdict=judge(score, lower, upper, threshold),
            status=found.status,
        ).to(self._device)
