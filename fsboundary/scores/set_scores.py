"""Scores of sets of rows without labels: an estimated accuracy, and drift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from scipy.stats import ks_2samp
from torch import Tensor

from fsboundary.core.checks import check_instance, check_labels, check_number
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import AccuracyEstimate, Drift, FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import OK_CODES, Status
from fsboundary.modes import in_standard_modes
from fsboundary.scores.formulas import boundary_ratio_of, region_ratio_of
from fsboundary.scores.measures import Measure
from fsboundary.scores.reference import Reference

_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@in_standard_modes
def estimate_accuracy(
    reference: Reference,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    validation: tuple[
        Float[TensorOrArray, "V d"] | FeatureBatch, Int[TensorOrArray, " V"] | Sequence[int]
    ]
    | None = None,
) -> AccuracyEstimate:
    """Return the estimated accuracy of the model on rows without labels.

    The average thresholded confidence of Garg et al. (2022), with the ratio of the distance to the
    nearest boundary to that to the hull of the predicted class as the confidence. The threshold is
    where, among labelled rows, the fraction below equals the fraction of errors.

    Parameters
    ----------
    reference : Reference
    features : FeatureBatch, or Tensor or array (B, d)
        Rows without labels, such as those of this month.
    validation : pair of rows and labels (V,), optional
        Labelled rows that the model was not trained on; -1 is no label. Without it, the reference
        rows, each left out of its hull: of a model that fits its training data perfectly they
        contain no error, and the accuracy cannot be estimated.

    Returns
    -------
    AccuracyEstimate

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or labelled rows without an error.
    HeadMismatchError
        A batch of another space than that of the reference.

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
    >>> round(float(estimate.accuracy), 3)
    1.0
    """
    check_instance("reference", reference, Reference, "a Reference", "pass Reference.fit(...)")
    z, predicted, device = reference.rows_of(features)
    ratios, correct = _source(reference, validation)
    errors = int((correct == 0).sum())
    if errors == 0:
        raise ArgumentError(
            "validation",
            f"{len(correct)} labelled rows without an error",
            "rows of which the model gets some wrong",
            "pass (space.extract(images), labels) of labelled images that the model was not "
            "trained on",
        )
    # as many rows lie below it as are wrong
    threshold = torch.cat([ratios.sort().values, torch.tensor([torch.inf])])[errors]
    found = boundary_ratio_of(reference, z, predicted, _no_rows(z))
    ok = torch.isin(found.status, torch.tensor(OK_CODES))
    rows = int(ok.sum())
    share, low, high = (
        (one[ok] >= threshold).double().mean() for one in (found.value, found.lower, found.upper)
    )
    return AccuracyEstimate(
        accuracy=share,
        lower=low,
        upper=high,
        interval=wilson_interval(share, rows),
        threshold=threshold,
        source_accuracy=(correct == 1).double().mean(),
        num_rows=torch.tensor(len(z)),
        num_failed=torch.tensor(len(z) - rows),
        status=torch.tensor(int(Status.CONVERGED if rows else Status.UNDECIDED)),
    ).to(device)


def _source(reference: Reference, validation: object) -> tuple[Tensor, Tensor]:
    """Return the ratios of labelled rows and whether the model is right about them, (V,) each."""
    if validation is None:
        known = reference.distribution("accuracy")
        return known.scores, known.labels
    if not isinstance(validation, tuple) or len(validation) != 2:
        fix = "pass (space.extract(images), labels)"
        wanted = "a pair of rows and labels"
        check_instance("validation", validation, tuple, wanted, fix)
        raise ArgumentError("validation", f"a tuple of {len(validation)}", wanted, fix)  # type: ignore[arg-type]
    z, predicted, _ = reference.rows_of(validation[0])
    given = check_labels(validation[1], len(z), "validation", reference.num_classes).cpu()
    found = boundary_ratio_of(reference, z, predicted, _no_rows(z))
    usable = torch.isin(found.status, torch.tensor(OK_CODES)) & (given >= 0)
    return found.value[usable], (given == predicted)[usable].long()


def _no_rows(z: Tensor) -> Tensor:
    return torch.full((len(z),), -1)


def wilson_interval(share: Tensor, rows: int) -> Tensor:
    """Return the 95 % interval of Wilson (1927) of fractions (...) of `rows`, (..., 2)."""
    if rows == 0:
        return torch.full((*share.shape, 2), torch.nan, dtype=torch.float64)
    share, square = share.double(), _95**2 / rows
    centre = (share + square / 2) / (1 + square)
    half = _95 / (1 + square) * (share * (1 - share) / rows + square / (4 * rows)).sqrt()
    # the share itself, where rounding has put an end on its other side
    low, high = torch.minimum(centre - half, share), torch.maximum(centre + half, share)
    return torch.stack([low, high], dim=-1).clamp(0, 1)


@in_standard_modes
def drift(
    reference: Reference,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    baseline: Float[TensorOrArray, "V d"] | FeatureBatch | None = None,
    level: float = 0.05,
) -> Drift:
    """Return whether a set of rows is distributed as the reference rows are.

    A Kolmogorov-Smirnov test of the mean distance to the other decision regions, divided by the
    distance to the hull of the predicted class; regions that cannot be reached do not count.

    Parameters
    ----------
    reference : Reference
    features : FeatureBatch, or Tensor or array (B, d)
        Rows, with or without labels; twenty images are enough for a strong drift.
    baseline : FeatureBatch, or Tensor or array (V, d), optional
        Rows that are known to be as they should, such as validation images. Without it, the
        reference rows, each left out of its hull; a network places the images that it was trained
        on otherwise than new ones, and that difference counts as drift.
    level : float
        p-value up to which the verdict is "drifted".

    Returns
    -------
    Drift

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or no reference row with a ratio.
    HeadMismatchError
        A batch of another space than that of the reference.

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
    >>> fsb.scores.drift(reference, rows + torch.tensor([3.0, -3.0])).words
    'drifted'
    """
    check_instance("reference", reference, Reference, "a Reference", "pass Reference.fit(...)")
    level = check_number("level", level, 0, 1, fix="pass 0.05")
    z, predicted, device = reference.rows_of(features)
    if baseline is None:
        usual = reference.distribution("drift").scores
    else:
        usual = _known(_region_ratios(reference, *reference.rows_of(baseline)[:2]))
    if not len(usual):
        fix = "pass other rows, or a reference with more rows"
        raise ArgumentError("baseline", "no row with a ratio", "at least one", fix)
    found = _known(_region_ratios(reference, z, predicted))
    statistic = p = median = torch.tensor(torch.nan, dtype=torch.float64)
    if len(found):
        test = ks_2samp(found.numpy(), usual.numpy())
        statistic = torch.tensor(float(test.statistic), dtype=torch.float64)
        p = torch.tensor(float(test.pvalue), dtype=torch.float64)
        median = found.median()
    verdict = 0 if not len(found) else 1 if float(p) <= level else -1
    return Drift(
        score=statistic,
        p_value=p,
        median=median,
        reference_median=usual.median(),
        verdict=torch.tensor(verdict),
        num_rows=torch.tensor(len(z)),
        num_failed=torch.tensor(len(z) - len(found)),
        num_reference=torch.tensor(len(usual)),
        status=torch.tensor(int(Status.CONVERGED if len(found) else Status.UNDECIDED)),
    ).to(device)


def _region_ratios(reference: Reference, z: Tensor, predicted: Tensor) -> Measure:
    return region_ratio_of(reference, z, predicted, _no_rows(z))


def _known(found: Measure) -> Tensor:
    """Return the values of the rows that did not fail."""
    return found.value[torch.isin(found.status, torch.tensor(OK_CODES))]
