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

from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.pricing import price_exact
from fsboundary.protocols import PointSet
from fsboundary.results import HullProjection
from fsboundary.status import Status
from fsboundary.tolerance import EPS, absolute, dot_error

INSIDE, OUTSIDE, UNDECIDED = 1, -1, 0


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extent:
    """RMS norm of the generators about their mean, their largest norm, their mean (d,)."""

    scale: Tensor
    largest: Tensor
    mean: Tensor


_extents: weakref.WeakKeyDictionary[PointSet, Extent] = weakref.WeakKeyDictionary()


def extent(points: PointSet) -> Extent:
    """Return the size of a point set, from one streamed pass; kept per point set."""
    if points not in _extents:
        n, total, largest = len(points), torch.zeros(points.num_features).double(), 0.0
        rows = chunk_rows(points.num_features, 4096)
        for part in chunks(n, rows):
            v = points.take(torch.arange(part.start, part.stop)).to(torch.float64)
            total = total.to(v.device) + v.sum(dim=0)
            largest = max(largest, float(torch.linalg.vector_norm(v, dim=1).max()))
        mean = total / n
        squares = torch.zeros_like(total)
        for part in chunks(n, rows):
            v = points.take(torch.arange(part.start, part.stop)).to(torch.float64)
            squares += (v - mean).square().sum(dim=0)
        _extents[points] = Extent(
            scale=(squares.sum() / n).sqrt(), largest=torch.tensor(largest).to(mean), mean=mean
        )
    return _extents[points]


def grade_hulls(
    points: PointSet,
    queries: Tensor,
    proposal: HullProjection,
    *,
    exclude: Tensor | None,
    rtol: float,
    max_steps: int,
) -> HullProjection:
    """Return the graded projection: only ``support``, ``weights`` and ``steps`` are read.

    Parameters
    ----------
    points : PointSet
    queries : Tensor (B, d), float64, finite
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    """
    size = extent(points)
    support, weights = _clean(proposal, len(points), exclude)
    held = weights.sum(dim=1) > 0
    weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    generators = points.take(support.clamp_min(0)).to(torch.float64)
    projected = (weights[:, None] @ generators)[:, 0]
    away = queries - projected
    distance = torch.linalg.vector_norm(away, dim=1)
    smallest, _, _ = price_exact(points, -away, size.largest, exclude, support)
    best = -smallest
    gap = (best - torch.linalg.vecdot(away, projected)).clamp_min(0.0)
    gamma = dot_error(queries.shape[1] + support.shape[1] + 16)
    reach = torch.linalg.vector_norm(queries, dim=1) + 3 * size.largest
    rounding = 2 * gamma * reach
    ratio = torch.where(distance > 0, gap / distance, 0.0)
    lower = (distance - ratio - rounding).clamp_min(0.0) * (1 - 4 * EPS)
    atol = absolute(size.scale)
    atol = torch.maximum(atol, EPS * reach)
    converged = held & (distance - lower <= torch.maximum(atol, rtol * distance))
    inside, outside = held & (distance <= atol), lower > atol
    # inside is decided by the distance alone: no bound can be tighter than 0
    status = torch.where(converged | inside, int(Status.CONVERGED), int(Status.INACCURATE))
    ran_out = (status == Status.INACCURATE) & (proposal.steps >= max_steps)
    status = torch.where(ran_out, int(Status.MAX_STEPS), status)
    membership = torch.where(inside, INSIDE, torch.where(outside, OUTSIDE, UNDECIDED))
    normal = away / distance[:, None]
    offset = best / distance + rounding
    failed = status != Status.CONVERGED

    def blank(value: Tensor, mask: Tensor) -> Tensor:
        shaped = mask.reshape(-1, *[1] * (value.ndim - 1))
        return torch.where(shaped, torch.nan, value)

    return HullProjection(
        points=blank(projected, failed),
        distance=blank(distance, failed),
        lower_bound=torch.where(held, lower, 0.0),
        gap=blank(distance - lower, failed),
        support=support,
        weights=weights,
        normal=blank(normal, ~outside),
        offset=blank(offset, ~outside),
        membership=membership,
        status=status,
        steps=proposal.steps,
    )


def _clean(proposal: HullProjection, count: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return support and weights with everything that is not admissible set to -1 and 0."""
    support, weights = proposal.support, proposal.weights.to(torch.float64)
    fine = (support >= 0) & (support < count) & torch.isfinite(weights) & (weights > 0)
    if exclude is not None:
        fine &= ~(support[:, :, None] == exclude[:, None, :]).any(dim=2)
    order = fine.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    support = torch.where(fine, support, -1).gather(1, order)
    return support, torch.where(fine, weights, 0.0).gather(1, order)
