"""Approximate hull solver: Frank-Wolfe with pairwise steps, for many rows at once.

Weight moves from the current generator that points away from the query the most to the one that
points towards it the most, by exact line search (Lacoste-Julien and Jaggi, "On the global linear
convergence of Frank-Wolfe optimization variants", NeurIPS 2015). Between two passes over all
generators the steps use only the current ones, which is cheap (Tsuji, Tanaka and Pokutta, "Pairwise
conditional gradients without swap steps and sparser kernel herding", ICML 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import INSIDE_FACTOR, SAFETY_FACTOR
from fsboundary.core.checks import check_integers
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.rows import write_rows
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.hulls.point_sets import point_set_stats
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls


@final
@dataclass(frozen=True, slots=True)
class AwaySteps(HullSolver):
    """Frank-Wolfe: no linear algebra, small memory, approximate; its bounds hold at any step.

    A row may keep more than d + 1 generators, some with little weight.

    Parameters
    ----------
    max_added : int
        Largest number of generators that join those of a row after a pass.
    inner_steps : int
        Largest number of steps among the current generators between two passes.
    """

    max_added: int = 4
    inner_steps: int = 100

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(self, max_added=self.max_added, inner_steps=self.inner_steps)

    def prepare(self, points: PointSet) -> PointSet:
        """Return the points themselves: nothing is precomputed."""
        return points

    def project(
        self,
        state: PointSet,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose points of the hull near each of `queries` (B,d), by `max_steps` passes."""
        stats = point_set_stats(state).to(queries.device)
        first = state.price(stats.mean - queries, 1, exclude)[1]
        sets, weights = first, (first >= 0).to(torch.float64)
        fields = unsolved_hulls(queries)
        fields["steps"] += 1
        todo = torch.arange(len(queries), device=queries.device)
        for step in range(1, max_steps + 1):
            weights[todo], away, current_gap = self._step_among_current(
                state, queries[todo], sets[todo], weights[todo]
            )
            along = torch.linalg.vecdot(away, queries[todo] - away)
            squared = torch.linalg.vecdot(away, away)
            if step == max_steps:
                break
            current = torch.where(weights[todo] > 0, sets[todo], -1)
            skip = current if exclude is None else torch.cat([current, exclude[todo]], dim=1)
            values, new = state.price(-away, self.max_added, skip)
            fields["steps"][todo] = step + 1
            gap = torch.maximum(current_gap, -values[:, 0] - along)
            ends = gap <= SAFETY_FACTOR * tolerance * squared
            ends |= squared <= (INSIDE_FACTOR * stats.scale).square()
            todo, current, new, values = (t[~ends] for t in (todo, current, new, values))
            if len(todo) == 0:
                break
            new = torch.where(-values > along[~ends, None], new, -1)
            sets, weights = _widen_sets(sets, weights, todo, current, new)
        fields["support"] = torch.where(weights > 0, sets, -1)
        # a row without any generator stays zero
        fields["weights"] = weights / weights.sum(dim=1, keepdim=True).clamp_min(0.5)
        return HullProjection(**fields)

    def _step_among_current(
        self, points: PointSet, queries: Tensor, sets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights (B,W) after steps among the current generators, q - p (B,d) and the gap.

        The gap (B,) is the largest (q - p).(v - p) of the current generators v.
        """
        index, index_of = sets.clamp_min(0).unique(return_inverse=True)
        values = points.take(index).to(torch.float64)
        weights, away = weights.clone(), torch.empty_like(queries)
        gap, width = torch.empty_like(away[:, 0]), sets.shape[1]
        for part in chunks(len(sets), chunk_rows(width * (width + queries.shape[1]))):
            shifted, valid = values[index_of[part]] - queries[part, None], sets[part] >= 0
            _pairwise_steps(shifted @ shifted.mT, weights[part], valid, self.inner_steps)
            nearest = (weights[part, None] @ shifted)[:, 0]
            slope = torch.where(valid, (shifted @ nearest[..., None])[..., 0], torch.inf)
            gap[part] = torch.linalg.vecdot(nearest, nearest) - slope.amin(dim=1)
            away[part] = -nearest
        return weights, away, gap


def _pairwise_steps(gram: Tensor, weights: Tensor, valid: Tensor, count: int) -> None:
    """Lower |Σ a_s y_s|² by `count` pairwise steps, in place on `weights` (B,W)."""
    slope = (gram @ weights[..., None])[..., 0]
    norms = gram.diagonal(dim1=1, dim2=2)
    rows = torch.arange(len(weights), device=weights.device)
    for _ in range(count):
        low = torch.where(valid, slope, torch.inf).argmin(dim=1)
        high = torch.where(weights > 0, slope, -torch.inf).argmax(dim=1)
        drop = (slope[rows, high] - slope[rows, low]).clamp_min(0.0)
        if not bool((drop > 0).any()):
            return
        curve = norms[rows, high] + norms[rows, low] - 2 * gram[rows, high, low]
        available = weights[rows, high]
        move = torch.where(curve > 0, torch.minimum(drop / curve, available), 0.0)
        weights[rows, high] -= move
        weights[rows, low] += move
        slope += move[:, None] * (gram[rows, low] - gram[rows, high])


def _widen_sets(
    sets: Tensor, weights: Tensor, rows: Tensor, current: Tensor, new: Tensor
) -> tuple[Tensor, Tensor]:
    """Return tables with the generators `current` and `new` of `rows`, no wider than needed."""
    order = (current >= 0).to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    used = int((current >= 0).sum(dim=1).amax())
    members = torch.cat([current.gather(1, order)[:, :used], new], dim=1)
    kept = weights[rows].gather(1, order)[:, :used]
    member_weights = torch.cat([kept, torch.zeros_like(new)], dim=1)
    fields = {"sets": sets, "weights": weights}
    solved = {"sets": members, "weights": member_weights}
    write_rows(fields, rows, solved, padding={"sets": -1, "weights": 0})
    return fields["sets"], fields["weights"]
