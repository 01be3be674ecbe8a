"""Certificates of hull projections and hull separations.

Everything is recomputed in float64 from the generators. With r = |q - p| and
fw_gap = max_i (q - p).(v_i - p): lower_bound = max(0, r - fw_gap / r) (design.md, "Hull of the
training set"), less its rounding. With R the largest norm of a generator and n = d + S + 16
terms, each of the two sums is off by at most γ (|q| + 3 R) after division by r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_FRACTION, EPS, dot_error
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.geometry.hulls.point_sets import (
    LOST,
    PointSetStats,
    point_set_stats,
    weighted_sums,
)
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.geometry.hulls.separation import Separation
from fsboundary.geometry.norms import TINY, lengths

INSIDE, OUTSIDE, UNDECIDED = 1, -1, 0


def distance_above(
    distance: Float64[Tensor, " B"],
    queries: Float64[Tensor, "B d"],
    largest: Float64[Tensor, ""],
    width: int,
) -> Float64[Tensor, " B"]:
    """Return an upper bound of the distance to the hull.

    Parameters
    ----------
    distance : Tensor (B,), float64
        Distance as graded, from supports of `width` generators: the point, the difference and its
        length are off by at most γ (|q| + 3 R), as the bound is.
    queries : Tensor (B, d), float64
        The projected rows.
    largest : Tensor (), float64
        R.
    width : int
        S.
    """
    gamma = 2 * dot_error(queries.shape[1] + width + 16)
    reach = lengths(queries) + 3 * (largest + LOST * queries.shape[1] ** 0.5)
    above: Tensor = distance + gamma * reach + TINY
    return above * (1 + 4 * EPS)


def grade_hulls(
    points: PointSet,
    queries: Float64[Tensor, "B d"],
    proposal: HullProjection,
    *,
    exclude: Int[Tensor, "B E"] | None,
    rtol: float,
    max_steps: int,
) -> HullProjection:
    """Return the graded projection.

    Only ``support``, ``weights`` and ``steps`` of the proposal are read. The bound comes from a
    pass over all generators that is made here, whatever the solver has already priced.

    Parameters
    ----------
    points : PointSet
        The generators, as the caller holds them and not as the solver sees them.
    queries : Tensor (B, d), float64
        Finite rows to project.
    proposal : HullProjection
        The solver's answer.
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    rtol : float
        Tolerance of the gap relative to the distance.
    max_steps : int
        Limit of steps; rows that reached it without a certificate are MAX_STEPS.
    """
    stats = point_set_stats(points)
    support, weights = _admissible(proposal, len(points), exclude)
    projected = weighted_sums(points, support, weights)
    rows = _measure(queries, projected, support, weights, stats, rtol)
    away, best, lower = _bound(points, rows, exclude, stats.largest)
    normal = away / torch.linalg.vector_norm(away, dim=1, keepdim=True)
    offset = (best + rows.rounding) / rows.unit[:, 0]
    # back to the units of the features: exact except for the smallest numbers
    smallest = torch.finfo(torch.float64).tiny
    distance, lower, atol = (t / rows.unit[:, 0] for t in (rows.distance, lower, rows.atol))
    lower = torch.where(lower < smallest, 0.0, lower)
    valid = rows.valid & torch.isfinite(distance)
    lower = lower.clamp_max(torch.finfo(torch.float64).max)
    atol = atol.clamp_min(smallest)
    converged = valid & (distance - lower <= torch.maximum(atol, rtol * distance))
    inside, outside = valid & (distance <= atol), lower > atol
    # inside is decided by the distance only: no bound can be tighter than 0
    status = torch.where(converged | inside, int(Status.CONVERGED), int(Status.INACCURATE))
    ran_out = (status == Status.INACCURATE) & (proposal.steps >= max_steps)
    status = torch.where(ran_out, int(Status.MAX_STEPS), status)
    membership = torch.where(inside, INSIDE, torch.where(outside, OUTSIDE, UNDECIDED))
    failed = status != Status.CONVERGED

    def blank(value: Tensor, mask: Tensor) -> Tensor:
        return torch.where(unsqueeze_like(mask, value), torch.nan, value)

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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Projected rows, scaled by a power of two each so that their numbers are near 1.

    Attributes
    ----------
    queries, away : Tensor (B, d)
        Scaled queries, and their differences from their projections.
    unit : Tensor (B, 1)
        Scale of each row.
    distance, atol, tolerance, rounding : Tensor (B,)
        Scaled distance, its absolute and its total tolerance, and the rounding of the bound.
    valid : Tensor (B,), bool
        Whether a row has weights and finite numbers.
    support : Tensor (B, S)
        Generators of each projection.
    """

    queries: Tensor
    away: Tensor
    unit: Tensor
    distance: Tensor
    atol: Tensor
    tolerance: Tensor
    rounding: Tensor
    valid: Tensor
    support: Tensor


def _measure(
    queries: Tensor,
    projected: Tensor,
    support: Tensor,
    weights: Tensor,
    stats: PointSetStats,
    rtol: float,
) -> _Measured:
    """Return distances and tolerances of rows and their projections."""
    unit = _unit(queries, projected, stats.largest)
    away = queries * unit - projected * unit
    reach = torch.linalg.vector_norm(queries * unit, dim=1) + 3 * stats.largest * unit[:, 0]
    lost = LOST * queries.shape[1] ** 0.5 * unit[:, 0]
    rounding = 2 * dot_error(queries.shape[1] + support.shape[1] + 16) * (reach + 3 * lost)
    distance = torch.linalg.vector_norm(away, dim=1)
    valid = (weights > 0).any(dim=1) & torch.isfinite(reach) & torch.isfinite(stats.scale)
    atol = torch.maximum(ATOL_FRACTION * stats.scale * unit[:, 0], EPS * reach)
    return _Measured(
        queries=queries * unit,
        away=away,
        unit=unit,
        distance=distance,
        atol=atol,
        tolerance=torch.maximum(atol, rtol * distance),
        rounding=rounding,
        valid=valid,
        support=support,
    )


def _bound(
    points: PointSet, rows: _Measured, exclude: Tensor | None, largest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the directions (B,d) that bound the distance best, max d.v, and the bounds (B,)."""

    def price(index: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return max d.v over all generators and the bound min d.(q - v), d of length 1."""
        length = torch.linalg.vector_norm(direction, dim=1)
        skip = None if exclude is None else exclude[index]
        toward = direction * rows.unit[index]
        priced = price_exact(points, -toward, largest, skip, rows.support[index])
        best = -priced.best / length
        along = torch.linalg.vecdot(direction, rows.queries[index]) / length
        return best, ((along - best) - rows.rounding[index]).nan_to_num(0.0, 0.0, 0.0)

    away = rows.away.clone()
    best, lower = price(torch.arange(len(away), device=away.device), away)
    # a residual near rounding points askew; the normal of the support's own face does not
    wide = rows.valid & (rows.distance > rows.atol) & (rows.distance - lower > rows.tolerance)
    again = wide.nonzero()[:, 0]
    if len(again):
        across = _face_normals(points, rows.support[again], away[again], rows.unit[again])
        better, higher = price(again, across)
        wins = higher > torch.maximum(lower[again], rows.atol[again])
        again = again[wins]
        away[again], best[again], lower[again] = across[wins], better[wins], higher[wins]
    lower = torch.minimum(lower, rows.distance).clamp_min(0.0) * (1 - 4 * EPS)
    return away, best, torch.where(rows.valid, lower, 0.0)


def _unit(queries: Tensor, projected: Tensor, largest: Tensor) -> Tensor:
    """Return a power of two (B,1) for each row that brings its numbers near 1."""
    size = torch.maximum(queries.abs().amax(dim=1), projected.abs().amax(dim=1))
    size = torch.maximum(size, largest).clamp_max(torch.finfo(torch.float64).max)
    power = torch.frexp(size).exponent.clamp(-1000, 1000)
    # numbers of ordinary size stay as they are
    power = torch.where(power.abs() <= 64, 0, power)
    return torch.ldexp(torch.ones_like(size), -power)[:, None]


_FLAT = 1e-12
"""Singular values below this fraction of the largest are rounding."""


def _face_normals(points: PointSet, support: Tensor, away: Tensor, unit: Tensor) -> Tensor:
    """Return `away` (B,d) without its components along the face that `support` (B,S) spans."""
    generators = points.take(support.clamp_min(0)).to(torch.float64) * unit[..., None]
    along = torch.where((support >= 0)[..., None], generators - generators[:, :1], 0.0)
    _, sizes, axes = torch.linalg.svd(along, full_matrices=False)
    axes = torch.where((sizes > _FLAT * sizes[:, :1])[..., None], axes, 0.0)
    for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
        away = away - ((axes @ away[..., None]).mT @ axes)[:, 0]
    return away


def _admissible(
    proposal: HullProjection, count: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return support and weights, with -1 and 0 for all that is not admissible."""
    support, weights = proposal.support, proposal.weights.to(torch.float64)
    usable = (support >= 0) & (support < count) & torch.isfinite(weights) & (weights > 0)
    if exclude is not None:
        usable &= ~(support[:, :, None] == exclude[:, None, :]).any(dim=2)
    support, weights = torch.where(usable, support, -1), torch.where(usable, weights, 0.0)
    # weights of repeated generators are summed, after division by the largest, so that no sum
    # overflows
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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeparationGrade:
    """What the proved distance between two hulls decides.

    Attributes
    ----------
    gap : Tensor (), float64
        Distance less lower bound.
    intersect : Tensor (), int64
        1 where the hulls meet within tolerance, -1 where they are apart, 0 undecided.
    status : Tensor (), int64
        CONVERGED, or why there is no certified answer.
    """

    gap: Float64[Tensor, ""]
    intersect: Int[Tensor, ""]
    status: Int[Tensor, ""]


def grade_separation(proved: Separation, *, rtol: float, ran_out: bool) -> SeparationGrade:
    """Return what the distances that were proved on both sides decide.

    Parameters
    ----------
    proved : Separation
        Bounds of the distance, computed from the generators of both sides.
    rtol : float
        Tolerance of the gap relative to the distance.
    ran_out : bool
        Whether the solver used all its steps.
    """
    meet, apart = proved.distance <= proved.atol, proved.lower_bound > proved.atol
    gap = proved.distance - proved.lower_bound
    converged = meet | (gap <= torch.maximum(proved.atol, rtol * proved.distance))
    failed = Status.MAX_STEPS if ran_out else Status.INACCURATE
    return SeparationGrade(
        gap=gap,
        intersect=meet.long() - apart.long(),
        status=torch.where(converged, int(Status.CONVERGED), int(failed)),
    )
