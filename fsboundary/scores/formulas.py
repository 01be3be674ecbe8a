"""Formulas of the scores: what each is of a row's certified distances.

A row is compared with hulls of training rows; a row of the training sample itself is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsboundary.boundaries import region_distances
from fsboundary.core.status import OK_CODES, Status
from fsboundary.scores.measures import (
    Measure,
    nearest_other_hull,
    outward,
    own_hull,
    share,
    share_bracket,
    unit_rounding,
    unit_rows,
)

if TYPE_CHECKING:
    from fsboundary.scores.reference import Reference

KINDS = ("margin", "ratio")
"""Measures of the label issues."""


def novelty_of(reference: Reference, z: Tensor, labels: Tensor, rows: Tensor) -> Measure:
    """Return the distances of z / |z| to the hulls of the normalised features of `labels` (B,).

    Parameters
    ----------
    reference : Reference
    z : Tensor (B, d), float64
    labels : Tensor (B,)
        Class of each row, -1 for none.
    rows : Tensor (B,)
        Row of the sample that each row is, -1 for none.
    """
    found = own_hull(reference.directions, unit_rows(z), labels, rows)
    rounding = unit_rounding(z.shape[1])
    zero = (z == 0).all(dim=1)
    return replace(
        found,
        lower=(found.lower - rounding).clamp_min(0),
        upper=found.upper + rounding,
        status=torch.where(zero, int(Status.DEGENERATE), found.status),
    )


def trust_of(reference: Reference, z: Tensor, labels: Tensor, rows: Tensor) -> Measure:
    """Return a / (a + b) of the distances to the own hull and to the nearest other one."""
    a = own_hull(reference.bank, z, labels, rows)
    b = nearest_other_hull(reference.bank, z, labels, rows)
    return _share_of(a, b)


def _share_of(a: Measure, b: Measure) -> Measure:
    lower, upper = share_bracket(a, b)
    status = _first_failure(a.status, b.status)
    value = share(a.value, b.value)
    neither = torch.isinf(a.value) & torch.isinf(b.value)
    return replace(
        b,
        value=value,
        lower=lower,
        upper=upper,
        status=torch.where(neither, int(Status.UNDECIDED), status),
    )


def _first_failure(one: Tensor, other: Tensor) -> Tensor:
    """Return the status (B,) of a number made of two others: the first that is no answer."""
    codes = torch.tensor(OK_CODES)
    status = torch.where(one == int(Status.INFEASIBLE), one, other)
    status = torch.where(torch.isin(other, codes), status, other)
    return torch.where(torch.isin(one, codes), status, one)


def label_doubt_of(
    reference: Reference, z: Tensor, given: Tensor, rows: Tensor, kind: str
) -> Measure:
    """Return a - b, or a / (a + b), for the hulls of clean rows of the given label and of others.

    The rows of a class that are clean are those whose label the cross-validated prediction of the
    other rows confirms with a probability above ½.
    """
    a = own_hull(reference.clean, z, given, rows)
    b = nearest_other_hull(reference.clean, z, given, rows)
    if kind == "ratio":
        return _share_of(a, b)
    value = a.value - b.value
    status = _first_failure(a.status, b.status)
    # the roundings of a difference and of the shift outward
    lower, upper = a.lower - b.upper, a.upper - b.lower
    _, slack = outward(lower.abs(), torch.maximum(lower.abs(), upper.abs()))
    slack = slack - torch.maximum(lower.abs(), upper.abs())
    slack = torch.where(torch.isfinite(slack), slack, 0.0)
    return replace(
        b,
        value=value,
        lower=lower - slack,
        upper=upper + slack,
        status=torch.where(value.isnan(), _or_undecided(status), status),
    )


def _or_undecided(status: Tensor) -> Tensor:
    """Return `status` (B,) where it is no answer, UNDECIDED elsewhere."""
    ok = torch.isin(status, torch.tensor(OK_CODES))
    return torch.where(ok, int(Status.UNDECIDED), status)


def label_probability(reference: Reference, z: Tensor, given: Tensor, rows: Tensor) -> Tensor:
    """Return the cross-validated probability of the given label of each row, (B,).

    A row of the sample is predicted by the fold that was fitted without it, any other row by the
    mean of all folds.
    """
    logits = torch.einsum("bd,fkd->fbk", z, reference.fold_weight)
    logits = logits + reference.fold_bias[:, None]
    own = logits.softmax(dim=2)[:, torch.arange(len(z)), given.clamp_min(0)]
    fold = torch.where(rows >= 0, reference.fold[rows.clamp_min(0)], -1)
    held_out = own.gather(0, fold.clamp_min(0)[None])[0]
    return torch.where(fold >= 0, held_out, own.mean(dim=0))


def boundary_ratio_of(reference: Reference, z: Tensor, labels: Tensor, rows: Tensor) -> Measure:
    """Return the distance to the nearest boundary, divided by that to the own hull.

    Larger is safer; +inf inside the hull, and 0 on a boundary.
    """
    own = own_hull(reference.bank, z, labels, rows)
    regions = region_distances(reference.head, z, "own")
    near = replace(
        own,
        value=regions.distance[:, 0],
        lower=regions.lower_bound[:, 0].clamp_min(0),
        upper=regions.distance[:, 0] + regions.violation[:, 0],
        status=regions.status[:, 0],
    )
    return _quotient(near, own)


def region_ratio_of(reference: Reference, z: Tensor, labels: Tensor, rows: Tensor) -> Measure:
    """Return the mean distance to the other regions, divided by that to the own hull.

    Regions that cannot be reached do not count.
    """
    regions = region_distances(reference.head, z, "all")
    others = (regions.target != labels[:, None]) & ~torch.isinf(regions.distance)
    count = others.sum(dim=1)
    mean = torch.where(others, regions.distance.abs(), 0.0).sum(dim=1) / count
    failed = ~regions.ok.all(dim=1)
    code = torch.where(regions.ok, 0, regions.status).amax(dim=1)
    own = own_hull(reference.bank, z, labels, rows)
    mean = torch.where(count == 0, torch.inf, mean)
    status = torch.where(failed, code, int(Status.CONVERGED))
    return _quotient(replace(own, value=mean, lower=mean, upper=mean, status=status), own)


def _quotient(one: Measure, own: Measure) -> Measure:
    """Return `one` divided by `own`: 0 where both are 0 or the hull is empty."""
    nothing = torch.isinf(own.value)
    lower = torch.where(one.lower == 0, 0.0, one.lower / own.upper)
    upper = torch.where(own.lower == 0, torch.inf, one.upper / own.lower)
    lower, upper = outward(lower, upper)
    value = torch.where(one.value == 0, 0.0, one.value / own.value)
    zero = torch.zeros_like(value)
    return replace(
        one,
        value=torch.where(nothing, zero, value),
        lower=torch.where(nothing, zero, lower),
        upper=torch.where(nothing, zero, upper),
        status=_first_failure(own.status, one.status),
    )


def mean_rank(known: Tensor, values: Tensor) -> Tensor:
    """Return the fraction of `known` (M,) below each of `values` (B,), ties counted half; 0 to 1.

    The rank that a rank average takes, relative to the reference instead of to the rows of a call,
    so that a row's score does not depend on other rows.
    """
    ordered = known.sort().values
    values = values.contiguous()
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    rank = (below + up_to).to(torch.float64) / (2 * max(len(ordered), 1))
    return torch.where(values.isnan(), torch.nan, rank)


def label_issue_of(
    reference: Reference, doubt: Measure, z: Tensor, given: Tensor, rows: Tensor, kind: str
) -> Measure:
    """Return the average rank of :func:`label_doubt_of` and of 1 - :func:`label_probability`."""
    margins = reference.distribution(f"label {kind}").scores
    second = mean_rank(
        reference.distribution("label doubt").scores,
        1 - label_probability(reference, z, given, rows),
    )
    value, lower, upper = (
        (mean_rank(margins, one) + second) / 2 for one in (doubt.value, doubt.lower, doubt.upper)
    )
    failed = torch.isin(doubt.status, torch.tensor(OK_CODES)) & value.isnan()
    return replace(
        doubt,
        value=value,
        lower=lower,
        upper=upper,
        status=torch.where(failed, int(Status.UNDECIDED), doubt.status),
    )
