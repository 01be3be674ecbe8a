"""Certified distances of rows to the hulls of their own class and of all others, as brackets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.checks import labelled_classes
from fsboundary.core.results import HullProjection
from fsboundary.core.status import OK_CODES, Status
from fsboundary.core.tolerance import EPS
from fsboundary.geometry.hulls.certify import INSIDE, distance_above
from fsboundary.geometry.hulls.point_sets import point_set_stats
from fsboundary.geometry.norms import TINY
from fsboundary.hulls.class_hulls import count_generators
from fsboundary.hulls.copies import copies_of
from fsboundary.hulls.projection import hull_projection

NUM_SUPPORT = 3
"""Number of training rows that are reported as the reason of a score."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measure:
    """A quantity of B rows: its value within certified limits, and what it is made of.

    Attributes
    ----------
    value, lower, upper : Tensor (B,), float64
        The quantity and its certified bracket; +inf where there is no hull.
    other : Tensor (B,)
        Class of the nearest other hull, -1 where there is none.
    support : Tensor (B, 3)
        Rows of the bank with the largest weights in the nearest point, -1 as padding.
    status : Tensor (B,)
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    other: Tensor
    support: Tensor
    status: Tensor


def own_hull(
    bank: FeatureBank, z: Tensor, labels: Tensor, leave_out: Tensor | None = None
) -> Measure:
    """Return the distances of the rows of `z` (B,d) to the hulls of their classes `labels` (B,)."""
    found = _project(bank, z, labels, leave_out)
    value, lower, upper = _bracket(bank, z, found)
    return Measure(
        value=value,
        lower=lower,
        upper=upper,
        other=torch.full_like(labels, -1),
        support=_weightiest(found),
        status=found.status,
    )


def nearest_other_hull(
    bank: FeatureBank, z: Tensor, labels: Tensor, leave_out: Tensor | None = None
) -> Measure:
    """Return the distances of rows to the nearest hull of another class than `labels` (B,).

    A class whose projection failed leaves a row open only if its hull may be the nearest.
    """
    infinite = torch.full((len(z),), torch.inf, dtype=torch.float64, device=z.device)
    best = Measure(
        value=infinite,
        lower=infinite.clone(),
        upper=infinite.clone(),
        other=torch.full_like(labels, -1),
        support=labels.new_full((len(z), NUM_SUPPORT), -1),
        status=torch.full_like(labels, int(Status.INFEASIBLE)),
    )
    open_lower, open_status = infinite.clone(), best.status.clone()
    codes = torch.tensor(OK_CODES, device=z.device)
    for k in labelled_classes(bank):
        wanted = labels != k
        found = _project(bank, z, torch.where(wanted, k, -1), leave_out)
        value, lower, upper = _bracket(bank, z, found)
        ok = torch.isin(found.status, codes)
        nearer = wanted & ok & (value < best.value)
        fail = wanted & ~ok & (lower < open_lower)
        open_lower = torch.where(fail, lower, open_lower)
        open_status = torch.where(fail, found.status, open_status)
        best = Measure(
            value=torch.where(nearer, value, best.value),
            lower=torch.where(wanted, torch.minimum(lower, best.lower), best.lower),
            upper=torch.where(wanted & ok, torch.minimum(upper, best.upper), best.upper),
            other=torch.where(nearer, k, best.other),
            support=torch.where(nearer[:, None], _weightiest(found), best.support),
            status=torch.where(nearer, found.status, best.status),
        )
    failed = open_lower < best.upper
    return replace(
        best,
        value=torch.where(failed, torch.nan, best.value),
        other=torch.where(failed, -1, best.other),
        status=torch.where(failed, open_status, best.status),
    )


def _project(
    bank: FeatureBank, z: Tensor, labels: Tensor, leave_out: Tensor | None
) -> HullProjection:
    """Return the projections of the rows of `z` (B,d) on the hulls of their classes `labels` (B,).

    A class without generators, or whose generators are all left out for a row, has no hull: the
    distance is +inf, the status INFEASIBLE.
    """
    exclude = None if leave_out is None else copies_of(bank).of(leave_out.cpu())
    count, excluded = count_generators(bank, labels.cpu(), exclude)
    empty = (excluded >= count).to(z.device) & (labels >= 0)
    wanted = torch.where(empty, -1, labels)
    fields = hull_projection(bank, z, labels=wanted, leave_out=leave_out).to_dict()
    empty = empty & torch.isfinite(z).all(dim=1)
    for name, value in (("distance", torch.inf), ("lower_bound", torch.inf), ("gap", 0.0)):
        fields[name] = torch.where(empty, value, fields[name])
    fields["membership"] = torch.where(empty, -1, fields["membership"])
    fields["status"] = torch.where(empty, int(Status.INFEASIBLE), fields["status"])
    return HullProjection(**fields)


def _bracket(bank: FeatureBank, z: Tensor, found: HullProjection) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distances (B,), exactly 0 inside, with certified lower and upper bounds."""
    largest = point_set_stats(bank).largest.to(z.device)
    upper = distance_above(found.distance, z, largest, found.support.shape[1])
    value = torch.where(found.membership == INSIDE, 0.0, found.distance)
    return value, found.lower_bound, upper


def _weightiest(found: HullProjection) -> Tensor:
    """Return the rows of the bank with the largest weights, (B,3), -1 as padding."""
    pad = (0, max(0, NUM_SUPPORT - found.support.shape[1]))
    weights = torch.nn.functional.pad(found.weights, pad)
    support = torch.nn.functional.pad(found.support, pad, value=-1)
    top = weights.sort(dim=1, descending=True, stable=True).indices[:, :NUM_SUPPORT]
    return torch.where(weights.gather(1, top) > 0, support.gather(1, top), -1)


def unit_rows(z: Tensor) -> Tensor:
    """Return the rows of `z` (B,d) divided by their norms; NaN where a row is 0.

    Divided by the largest entry first, so that no norm overflows.
    """
    scaled = z / z.abs().amax(dim=1, keepdim=True)
    unit: Tensor = scaled / scaled.norm(dim=1, keepdim=True)
    return unit


def unit_rounding(width: int) -> float:
    """Return a bound of how far rounding moves the distance of a unit row to a hull of such rows.

    A norm of d terms is off by at most (d / 2 + 1) roundoffs and each quotient by one, for the row
    and for every generator: 2 (d + 4) eps covers both.
    """
    return 2 * (width + 4) * EPS


def outward(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return limits of a number of at least 0, after a few rounded operations, moved apart."""
    return lower * (1 - 8 * EPS), upper * (1 + 8 * EPS) + TINY


def share(a: Tensor, b: Tensor) -> Tensor:
    """Return a / (a + b) of numbers of at least 0: ½ where both are 0, NaN where both are +inf."""
    larger = torch.maximum(a, b)
    one, other = a / larger, b / larger
    quotient = one / (one + other)
    quotient = torch.where(torch.isinf(a) & torch.isfinite(b), 1.0, quotient)
    quotient = torch.where(torch.isinf(b) & torch.isfinite(a), 0.0, quotient)
    return torch.where(larger == 0, 0.5, quotient)


def share_bracket(a: Measure, b: Measure) -> tuple[Tensor, Tensor]:
    """Return certified limits of a / (a + b), which grows with a and falls with b.

    Where both brackets contain 0, the quotient may be anything from 0 to 1.
    """
    lower = torch.where(a.lower == 0, 0.0, share(a.lower, b.upper))
    upper = torch.where(b.lower == 0, 1.0, share(a.upper, b.lower))
    low, high = outward(lower, upper)
    return low.clamp(0, 1), high.clamp(0, 1)
