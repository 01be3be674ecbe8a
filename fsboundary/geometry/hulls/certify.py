"""Certificates of hull projections and hull separations.

Everything is recomputed in float64 from the generators. With r = |q - p| and
fw_gap = max_i (q - p).(v_i - p): lower_bound = max(0, r - fw_gap / r) (design.md, "Hull of the
training set"), less its rounding. With R the largest norm of a generator and n = d + S + 16
terms, each of the two sums is off by at most γ (|q| + 3 R) after division by r. Rows that this
rounding leaves open are projected in exact arithmetic, where they are small enough.

A row is outside if its bound is above 0, and inside if it is not and the distance is within the
row's own tolerance: 1e-9 of the smaller of the RMS norm of the generators about their mean and the
row's spread Σ a_i |v_i - q|, at least one ulp of its numbers. A generator counts in the spread by
its weight, so one enormous generator does not make rows of ordinary size "inside".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results import HullProjection
from fsboundary.core.rows import pad_columns
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_FRACTION, EPS, dot_error
from fsboundary.geometry.batching import chunk_rows, unsqueeze_like
from fsboundary.geometry.hulls.exact_projection import project_exactly
from fsboundary.geometry.hulls.point_sets import LOST
from fsboundary.geometry.hulls.row_sets import RowSets
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
    sets: RowSets,
    queries: Float64[Tensor, "B d"],
    proposal: HullProjection,
    *,
    rtol: float,
    max_steps: int,
) -> HullProjection:
    """Return the graded projection.

    Only ``support``, ``weights`` and ``steps`` of the proposal are read. The bound comes from a
    pass over all generators that is made here, whatever the solver has already priced.

    Parameters
    ----------
    sets : RowSets
        The generators of each row, as the caller holds them and not as the solver sees them.
    queries : Tensor (B, d), float64
        Finite rows to project.
    proposal : HullProjection
        The solver's answer.
    rtol : float
        Tolerance of the gap relative to the distance.
    max_steps : int
        Limit of steps; rows that reached it without a certificate are MAX_STEPS.
    """
    support, weights = _admissible(proposal, sets)
    index = torch.arange(len(queries), device=queries.device)
    projected = sets.weighted_sums(index, support, weights)
    rows = _measure(queries, projected, support, weights, sets.largest)
    graded = _bound(sets, rows, rtol)
    _refine(sets, queries, graded, rows, rtol)
    distance, lower = graded.distance, graded.lower_bound
    converged = graded.valid & (distance - lower <= graded.tolerance(rtol))
    # a bound above 0 is a proof, whatever the tolerance
    outside = graded.valid & (lower > 0)
    inside = graded.valid & ~outside & (distance <= graded.atol)
    # inside is decided by the distance only: no bound can be tighter than 0
    status = torch.where(converged | inside, int(Status.CONVERGED), int(Status.INACCURATE))
    ran_out = (status == Status.INACCURATE) & (proposal.steps >= max_steps)
    status = torch.where(ran_out, int(Status.MAX_STEPS), status)
    membership = torch.where(inside, INSIDE, torch.where(outside, OUTSIDE, UNDECIDED))
    failed = status != Status.CONVERGED

    def blank(value: Tensor, mask: Tensor) -> Tensor:
        return torch.where(unsqueeze_like(mask, value), torch.nan, value)

    return HullProjection(
        points=blank(graded.points, failed),
        distance=blank(distance, failed),
        lower_bound=lower,
        gap=blank(distance - lower, failed),
        support=graded.support,
        weights=graded.weights,
        normal=blank(graded.normal, ~outside),
        offset=blank(graded.offset, ~outside),
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
    points : Tensor (B, d)
        Projections, not scaled.
    queries, away : Tensor (B, d)
        Scaled queries, and their differences from their projections.
    unit : Tensor (B, 1)
        Scale of each row.
    distance, reach, rounding : Tensor (B,)
        Scaled distance, size of the numbers, and the rounding of the bound.
    valid : Tensor (B,), bool
        Whether a row has weights and finite numbers.
    support, weights : Tensor (B, S)
        Generators of each projection, and their weights.
    """

    points: Tensor
    queries: Tensor
    away: Tensor
    unit: Tensor
    distance: Tensor
    reach: Tensor
    rounding: Tensor
    valid: Tensor
    support: Tensor
    weights: Tensor


def _measure(
    queries: Tensor, projected: Tensor, support: Tensor, weights: Tensor, largest: Tensor
) -> _Measured:
    """Return distances and roundings of rows and their projections."""
    unit = _unit(queries, projected, largest)
    away = queries * unit - projected * unit
    reach = torch.linalg.vector_norm(queries * unit, dim=1) + 3 * largest * unit[:, 0]
    lost = LOST * queries.shape[1] ** 0.5 * unit[:, 0]
    return _Measured(
        points=projected,
        queries=queries * unit,
        away=away,
        unit=unit,
        distance=lengths(away),
        reach=reach,
        rounding=2 * dot_error(queries.shape[1] + support.shape[1] + 16) * (reach + 3 * lost),
        valid=(weights > 0).any(dim=1) & torch.isfinite(reach),
        support=support,
        weights=weights,
    )


@final
@dataclass(slots=True, kw_only=True, eq=False)
class _Graded:
    """Fields of the result, in feature units, before statuses; rows are replaced in place.

    Attributes
    ----------
    atol : Tensor (B,)
        Absolute tolerance of each row that is not settled by its bound.
    valid : Tensor (B,), bool
        Whether the numbers are finite.
    """

    points: Tensor
    distance: Tensor
    lower_bound: Tensor
    normal: Tensor
    offset: Tensor
    support: Tensor
    weights: Tensor
    atol: Tensor
    valid: Tensor

    def tolerance(self, rtol: float) -> Tensor:
        """Return the total tolerance (B,) of the gap."""
        return torch.maximum(self.atol, rtol * self.distance)


def _bound(sets: RowSets, rows: _Measured, rtol: float) -> _Graded:
    """Return the rows with the directions that bound their distances best."""

    def price(index: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return max d.v over all generators and the bound min d.(q - v), d of length 1."""
        length = torch.linalg.vector_norm(direction, dim=1)
        toward = direction * rows.unit[index]
        best = -sets.smallest_products(index, -toward, rows.support[index]) / length
        along = torch.linalg.vecdot(direction, rows.queries[index]) / length
        return best, ((along - best) - rows.rounding[index]).nan_to_num(0.0, 0.0, 0.0)

    away = rows.away.clone()
    best, lower = price(torch.arange(len(away), device=away.device), away)
    atol = torch.zeros_like(lower)
    open_rows = rows.valid & ((lower <= 0) | (rows.distance - lower > rtol * rows.distance))
    index = open_rows.nonzero()[:, 0]
    if len(index):
        atol[index] = _row_tolerance(sets, rows, index)
        near = open_rows & (rows.distance > atol)
        near &= rows.distance <= ATOL_FRACTION * sets.scale * rows.unit[:, 0]
        _polish(sets, rows, atol, near.nonzero()[:, 0])
    # a residual near rounding points askew; the normal of the support's own face does not
    wide = open_rows & (rows.distance > atol) & (rows.distance - lower > atol)
    again = wide.nonzero()[:, 0]
    if len(again):
        across = _face_normals(sets, rows, again, away[again])
        better, higher = price(again, across)
        wins = higher > lower[again].clamp_min(0.0)
        again = again[wins]
        away[again], best[again], lower[again] = across[wins], better[wins], higher[wins]
    lower = torch.minimum(lower, rows.distance).clamp_min(0.0) * (1 - 4 * EPS)
    # back to the units of the features: exact except for the smallest numbers
    distance, lower, atol = (t / rows.unit[:, 0] for t in (rows.distance, lower, atol))
    valid = rows.valid & torch.isfinite(distance)
    lower = torch.where(valid & (lower >= TINY), lower, 0.0)
    return _Graded(
        points=rows.points,
        distance=distance,
        lower_bound=lower.clamp_max(torch.finfo(torch.float64).max),
        normal=away / torch.linalg.vector_norm(away, dim=1, keepdim=True),
        # half of the rounding is that of the products, the other half that of the row
        offset=(best + rows.rounding / 2) / rows.unit[:, 0],
        support=rows.support,
        weights=rows.weights,
        atol=atol.clamp_min(TINY),
        valid=valid,
    )


def _row_tolerance(sets: RowSets, rows: _Measured, index: Tensor) -> Tensor:
    """Return the absolute tolerance of the rows `index` (B,), in the units of each."""
    queries, unit = rows.queries[index], rows.unit[index]
    support, weights = rows.support[index], rows.weights[index]
    spread = sets.weighted_distances(index, support, weights, queries, unit)
    scale = sets.scale.expand(len(rows.queries))[index]
    # a scale that overflows is no limit
    size = torch.minimum(spread, (scale * unit[:, 0]).nan_to_num(torch.inf))
    ulp = EPS * (4 * lengths(queries) + 3 * spread)
    return torch.maximum(ATOL_FRACTION * size, ulp)


def _polish(sets: RowSets, rows: _Measured, atol: Tensor, index: Tensor) -> None:
    """Improve the weights of the rows `index`, which rounding keeps from their own tolerance.

    Beside a generator that nearly equals the row, those of the others are tiny, and a solver
    leaves them with the rounding of its own numbers. The correction is relative to each weight.
    """
    fit = chunk_rows(rows.support.shape[1] * rows.queries.shape[1])
    for part in index.split(fit):
        support, weights, unit = rows.support[part], rows.weights[part], rows.unit[part]
        queries = rows.queries[part]
        generators = sets.take(part, support.clamp_min(0))
        away = torch.where(
            (support >= 0)[..., None], generators * unit[..., None] - queries[:, None], 0
        )
        size = torch.linalg.vecdot(weights, lengths(away)).clamp_min(TINY)
        columns = torch.cat([away / size[:, None, None], torch.ones_like(away[..., :1])], dim=2)
        columns = (columns * weights[..., None]).mT.cpu()
        goal = -columns.sum(dim=2, keepdim=True)
        goal[:, -1] = 0.0
        change = torch.linalg.lstsq(columns, goal, driver="gelsd").solution[..., 0].to(weights)
        better = weights * (1 + change)
        better = better / better.sum(dim=1, keepdim=True)
        # the heaviest generator may be the row itself
        only = torch.zeros_like(weights)
        only[:, 0] = 1.0
        for tried in (better, only):
            shorter = lengths((tried[:, None] @ away)[:, 0])
            keep = (tried >= 0).all(dim=1) & (shorter < rows.distance[part])
            good, kept = part[keep], tried[keep]
            rows.weights[good] = kept
            rows.support[good] = torch.where(kept > 0, rows.support[good], -1)
            rows.points[good] = sets.weighted_sums(good, rows.support[good], kept)
            rows.away[good] = rows.queries[good] - rows.points[good] * rows.unit[good]
            rows.distance[good] = lengths(rows.away[good])
            atol[good] = _row_tolerance(sets, rows, good)


_CLOSE = 1e-6
"""Distances below this fraction of the numbers are beyond float64, whose squares keep half of its
digits."""

_COARSE = 0.05
"""A rounding above this fraction of the tolerance may be what leaves a row open."""


def _refine(sets: RowSets, queries: Tensor, graded: _Graded, rows: _Measured, rtol: float) -> None:
    """Replace rows that float64 leaves open by their projections in exact arithmetic."""
    distance, unit = graded.distance, rows.unit[:, 0]
    tolerance = graded.tolerance(rtol)
    decided = (distance - graded.lower_bound <= tolerance) | (distance <= graded.atol)
    coarse = rows.rounding > _COARSE * tolerance * unit
    doubtful = ~graded.valid | coarse | (rows.distance <= _CLOSE * rows.reach)
    # two hulls are one row, and whether they meet is the question
    decided &= (graded.lower_bound > 0) | (distance == 0) | (not sets.differences)
    usable = (rows.weights > 0).any(dim=1) & ~(graded.valid & decided)
    scales = sets.scale.to(queries.device).expand(len(queries))
    for row in (usable & doubtful).nonzero()[:, 0].tolist():
        points, skip = sets.of_row(row)
        found = project_exactly(points, queries[row], graded.support[row], skip)
        if found is None or found.lower_bound < float(graded.lower_bound[row]):
            continue
        device, width = queries.device, len(found.support)
        if graded.support.shape[1] < width:
            graded.support = pad_columns(graded.support, width, -1)
            graded.weights = pad_columns(graded.weights, width, 0)
        support = torch.from_numpy(found.support).to(device)
        weights = torch.from_numpy(found.weights).to(device)
        point = torch.from_numpy(found.point).to(device)
        away = points.take(support).to(torch.float64) - queries[row]
        spread = weights @ lengths(away)
        ulp = EPS * (4 * lengths(queries[row]) + 3 * spread)
        graded.support[row] = pad_columns(support, graded.support.shape[1], -1)
        graded.weights[row] = pad_columns(weights, graded.weights.shape[1], 0)
        graded.points[row] = point
        graded.distance[row] = lengths(queries[row] - point)
        # rounding may place the computed point closer than the exact one
        graded.lower_bound[row] = min(found.lower_bound, float(graded.distance[row]))
        graded.normal[row] = torch.from_numpy(found.normal).to(device)
        graded.offset[row] = found.offset
        scale = scales[row].nan_to_num(torch.inf)
        atol = torch.maximum(ATOL_FRACTION * torch.minimum(spread, scale), ulp)
        graded.atol[row] = atol.clamp_min(TINY)
        graded.valid[row] = bool(torch.isfinite(graded.distance[row] + atol))


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


def _face_normals(sets: RowSets, rows: _Measured, index: Tensor, away: Tensor) -> Tensor:
    """Return `away` (b,d) without its components along the faces that support rows `index` (b,)."""
    support = rows.support[index]
    generators = sets.take(index, support.clamp_min(0)) * rows.unit[index, :, None]
    along = torch.where((support >= 0)[..., None], generators - generators[:, :1], 0.0)
    _, sizes, axes = torch.linalg.svd(along, full_matrices=False)
    axes = torch.where((sizes > _FLAT * sizes[:, :1])[..., None], axes, 0.0)
    for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
        away = away - ((axes @ away[..., None]).mT @ axes)[:, 0]
    return away


def _admissible(proposal: HullProjection, sets: RowSets) -> tuple[Tensor, Tensor]:
    """Return support and weights, with -1 and 0 for all that is not admissible."""
    support, weights = proposal.support, proposal.weights.to(torch.float64)
    usable = sets.counts_in(support) & torch.isfinite(weights) & (weights > 0)
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

    A bound above 0 proves that the hulls are apart, whatever the tolerance.

    Parameters
    ----------
    proved : Separation
        Bounds of the distance, computed from the generators of both sides.
    rtol : float
        Tolerance of the gap relative to the distance.
    ran_out : bool
        Whether the solver used all its steps.
    """
    apart = proved.lower_bound > 0
    meet = ~apart & (proved.distance <= proved.atol)
    gap = proved.distance - proved.lower_bound
    allowed = torch.maximum(torch.maximum(proved.atol, proved.ulp), rtol * proved.distance)
    converged = meet | (gap <= allowed)
    failed = Status.MAX_STEPS if ran_out else Status.INACCURATE
    return SeparationGrade(
        gap=gap,
        intersect=meet.long() - apart.long(),
        status=torch.where(converged, int(Status.CONVERGED), int(failed)),
    )
