"""Grading of hull projections, in float64, with a final pass over all generators.

With r = |q - p| and fw_gap = max_i (q - p).(v_i - p): lower_bound = max(0, r - fw_gap / r)
(design.md, "Hull of the training set"), less its rounding. With R the largest norm of a generator
and n = d + S + 16 terms, each of the two sums is off by at most γ (|q| + 3 R) after division by r.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import MeasuredPointSet, Moments, PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_SHARE, EPS, dot_error
from fsboundary.geometry.batching import over_rows, streamed
from fsboundary.geometry.hulls.point_sets import Lent, combined
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.geometry.norms import TINY, lengths

INSIDE, OUTSIDE, UNDECIDED = 1, -1, 0

LOST = 2.0**-510
"""Squares below 2**-1022 vanish from a norm: numbers below 2**-511."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extent:
    """RMS norm of the generators about their mean, their largest norm, their mean (d,)."""

    scale: Tensor
    largest: Tensor
    mean: Tensor


_extents: weakref.WeakKeyDictionary[PointSet, Extent] = weakref.WeakKeyDictionary()


def extent(points: PointSet) -> Extent:
    """Return the size of a point set, by its own account or from streamed passes; kept."""
    points = points.own if isinstance(points, Lent) else points
    if points not in _extents:
        sizes = points.moments() if isinstance(points, MeasuredPointSet) else _streamed(points)
        scale = (sizes.squares / sizes.count).sqrt()
        _extents[points] = Extent(scale=scale, largest=sizes.largest, mean=sizes.mean)
    return _extents[points]


def _streamed(points: PointSet) -> Moments:
    n, total, largest = len(points), torch.zeros(points.num_features).double(), 0.0
    for v in streamed(points):
        total = total.to(v.device) + v.sum(dim=0)
        largest = max(largest, float(torch.linalg.vector_norm(v, dim=1).max()))
    mean = total / n
    squares = torch.zeros_like(total)
    for v in streamed(points):
        squares += (v - mean).square().sum(dim=0)
    return Moments(n, mean, squares.sum(), torch.tensor(largest).to(mean))


def distance_above(distance: Tensor, queries: Tensor, largest: Tensor, width: int) -> Tensor:
    """Return what the distance (B,) to the hull certainly does not exceed.

    Parameters
    ----------
    distance : Tensor (B,), float64
        As graded, from supports of `width` generators: the point, the difference and its length
        are off by at most γ (|q| + 3 R), as the bound is.
    queries : Tensor (B, d), float64
    largest : Tensor (), float64
        R.
    """
    gamma = 2 * dot_error(queries.shape[1] + width + 16)
    reach = lengths(queries) + 3 * (largest + LOST * queries.shape[1] ** 0.5)
    above: Tensor = distance + gamma * reach + TINY
    return above * (1 + 4 * EPS)


def grade_hulls(
    points: PointSet,
    queries: Tensor,
    proposal: HullProjection,
    *,
    exclude: Tensor | None,
    rtol: float,
    max_steps: int,
) -> HullProjection:
    """Return the graded projection: of the proposal only what is named here is read.

    ``support``, ``weights`` and ``steps``; and ``normal``, as the residual with which the solver
    last priced all generators: where :func:`price_exact` has written down that pass, it is not
    made again.

    Parameters
    ----------
    points : PointSet
    queries : Tensor (B, d), float64, finite
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    """
    size = extent(points)
    support, weights = _clean(proposal, len(points), exclude)
    projected = combined(points, support, weights)
    unit = _unit(queries, projected, size.largest)
    away = queries * unit - projected * unit
    reach = torch.linalg.vector_norm(queries * unit, dim=1) + 3 * size.largest * unit[:, 0]
    lost = LOST * queries.shape[1] ** 0.5 * unit[:, 0]
    rounding = 2 * dot_error(queries.shape[1] + support.shape[1] + 16) * (reach + 3 * lost)
    distance = torch.linalg.vector_norm(away, dim=1)
    held = (weights > 0).any(dim=1) & torch.isfinite(reach) & torch.isfinite(size.scale)
    atol = torch.maximum(ATOL_SHARE * size.scale * unit[:, 0], EPS * reach)
    allowed = torch.maximum(atol, rtol * distance)

    def priced(rows: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return max d.v over all generators and the bound min d.(q - v), d of length 1."""
        length = torch.linalg.vector_norm(direction, dim=1)
        skip = None if exclude is None else exclude[rows]
        toward = direction * unit[rows]
        # passes are written down for the solver's own numbers
        told = torch.where(unit[rows] == 1, proposal.normal[rows], torch.nan)
        best = _farthest(points, toward, told, size.largest, skip, support[rows], rtol) / length
        along = torch.linalg.vecdot(direction, queries[rows] * unit[rows]) / length
        return best, ((along - best) - rounding[rows]).nan_to_num(0.0, 0.0, 0.0)

    every = torch.arange(len(queries), device=queries.device)
    best, lower = priced(every, away)
    # a residual near rounding points askew; the normal of the support's own face does not
    again = (held & (distance > atol) & (distance - lower > allowed)).nonzero()[:, 0]
    if len(again):
        across = _across(points, support[again], away[again], unit[again])
        better, higher = priced(again, across)
        wins = higher > torch.maximum(lower[again], atol[again])
        again = again[wins]
        away[again], best[again], lower[again] = across[wins], better[wins], higher[wins]
    lower = torch.where(held, torch.minimum(lower, distance).clamp_min(0.0) * (1 - 4 * EPS), 0.0)
    normal = away / torch.linalg.vector_norm(away, dim=1, keepdim=True)
    offset = (best + rounding) / unit[:, 0]
    # back to the units of the features: exact but for the smallest numbers
    smallest = torch.finfo(torch.float64).tiny
    distance, lower, atol = (t / unit[:, 0] for t in (distance, lower, atol))
    lower = torch.where(lower < smallest, 0.0, lower)
    held &= torch.isfinite(distance)
    lower = lower.clamp_max(torch.finfo(torch.float64).max)
    atol = atol.clamp_min(smallest)
    converged = held & (distance - lower <= torch.maximum(atol, rtol * distance))
    inside, outside = held & (distance <= atol), lower > atol
    # inside is decided by the distance alone: no bound can be tighter than 0
    status = torch.where(converged | inside, int(Status.CONVERGED), int(Status.INACCURATE))
    ran_out = (status == Status.INACCURATE) & (proposal.steps >= max_steps)
    status = torch.where(ran_out, int(Status.MAX_STEPS), status)
    membership = torch.where(inside, INSIDE, torch.where(outside, OUTSIDE, UNDECIDED))
    failed = status != Status.CONVERGED

    def blank(value: Tensor, mask: Tensor) -> Tensor:
        return torch.where(over_rows(mask, value), torch.nan, value)

    return HullProjection(
        points=blank(projected, failed),
        distance=blank(distance, failed),
        lower_bound=lower,
        gap=blank(distance - lower, failed),
        support=support,
        weights=weights,
        normal=blank(normal, ~outside),
        offset=blank(offset, ~outside),
        membership=membership,
        status=status,
        steps=proposal.steps,
    )


_NEAR = 1e-4
"""A pass with another residual stands in for one with a row's own where that can cost at most
this share of the squared distance in the gap times the row's relative tolerance."""


def _farthest(
    points: PointSet,
    away: Tensor,
    priced: Tensor,
    largest: Tensor,
    exclude: Tensor | None,
    support: Tensor,
    rtol: float,
) -> Tensor:
    """Return a number (B,) that no product of `away` (B,d) with a generator exceeds."""
    best = torch.full_like(away[:, 0], torch.nan)
    if isinstance(points, Lent):
        # the factor covers the rounding of the norm
        shift = torch.linalg.vector_norm(away - priced, dim=1) * largest * (1 + 1e-9)
        fits = shift <= _NEAR * rtol * torch.linalg.vecdot(away, away)
        known = fits.nonzero()[:, 0]
        skip = None if exclude is None else exclude[known]
        # |away . v - priced . v| is at most |away - priced| |v|
        best[known] = shift[known] - points.look_up(-priced[known], skip)
    rest = torch.isnan(best).nonzero()[:, 0]
    if len(rest):
        skip = None if exclude is None else exclude[rest]
        found = price_exact(points, -away[rest], largest, skip, support[rest])
        best[rest] = -found.best
    return best


def _unit(queries: Tensor, projected: Tensor, largest: Tensor) -> Tensor:
    """Return a power of two (B,1) for each row that brings its numbers near 1."""
    size = torch.maximum(queries.abs().amax(dim=1), projected.abs().amax(dim=1))
    size = torch.maximum(size, largest).clamp_max(torch.finfo(torch.float64).max)
    power = torch.frexp(size).exponent.clamp(-1000, 1000)
    # ordinary numbers stay as they are, and so do the passes that were written down for them
    power = torch.where(power.abs() <= 64, 0, power)
    return torch.ldexp(torch.ones_like(size), -power)[:, None]


_FLAT = 1e-12
"""Singular values below this share of the largest are rounding."""


def _across(points: PointSet, support: Tensor, away: Tensor, unit: Tensor) -> Tensor:
    """Return `away` (B,d) without its parts along the face that `support` (B,S) spans."""
    held = points.take(support.clamp_min(0)).to(torch.float64) * unit[..., None]
    along = torch.where((support >= 0)[..., None], held - held[:, :1], 0.0)
    _, sizes, axes = torch.linalg.svd(along, full_matrices=False)
    axes = torch.where((sizes > _FLAT * sizes[:, :1])[..., None], axes, 0.0)
    for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
        away = away - ((axes @ away[..., None]).mT @ axes)[:, 0]
    return away


def _clean(proposal: HullProjection, count: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return support and weights with everything that is not admissible set to -1 and 0."""
    support, weights = proposal.support, proposal.weights.to(torch.float64)
    fine = (support >= 0) & (support < count) & torch.isfinite(weights) & (weights > 0)
    if exclude is not None:
        fine &= ~(support[:, :, None] == exclude[:, None, :]).any(dim=2)
    support, weights = torch.where(fine, support, -1), torch.where(fine, weights, 0.0)
    # a generator that is named twice carries the sum; shares of the largest, lest a sum overflows
    weights = weights / weights.amax(dim=1, keepdim=True).clamp_min(5e-324)
    support, order = support.sort(dim=1, stable=True)
    weights = weights.gather(1, order)
    first = torch.ones_like(support, dtype=torch.bool)
    first[:, 1:] = support[:, 1:] != support[:, :-1]
    slot = first.cumsum(dim=1) - 1
    weights = torch.zeros_like(weights).scatter_add_(1, slot, weights)
    support = torch.full_like(support, -1).scatter_(1, slot, support)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1.0)
    support = torch.where(weights > 0, support, -1)
    order = weights.sort(dim=1, descending=True, stable=True).indices
    return support.gather(1, order), weights.gather(1, order)
