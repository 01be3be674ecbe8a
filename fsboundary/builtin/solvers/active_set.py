"""The default hull solver: batched column generation with exact small programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.solvers.columns import Columns
from fsboundary.builtin.solvers.pool import Pool
from fsboundary.interfaces import HullSolver, unsolved_hulls
from fsboundary.protocols import PointSet
from fsboundary.results import HullProjection


@final
@dataclass(frozen=True, slots=True)
class ActiveSet(HullSolver):
    """Exact projections: price many generators at once, keep the few that carry weight.

    Each row keeps a small set of generators and the exact projection on their hull. The
    generators farthest along the residual join, first from a pool that all rows share, then, to
    end, from all; those whose weight falls to zero leave (Wolfe 1976; design.md, "Hull of the
    training set"). A small first batch fills the pool with generators that carry weight, which
    saves the later batches most of their passes over all generators.

    Parameters
    ----------
    added : int
        Generators that may join a row's set in one round.
    first, batch : int
        Queries solved together, in the first batch and later.
    rows : int
        Small programs solved together.
    """

    added: int = 6
    first: int = 256
    batch: int = 4096
    rows: int = 512

    def prepare(self, points: PointSet) -> Pool:
        """Return the state: sizes of the point set and an empty pool."""
        return Pool(points)

    def project(
        self,
        state: Pool,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        fields = unsolved_hulls(queries)
        order = _order(queries - state.size.mean, self.first)
        parts = []
        for part in _batches(len(queries), self.first, self.batch):
            rows = order[part]
            skip = None if exclude is None else exclude[rows]
            work = Columns(state, queries[rows], skip, tolerance, added=self.added, rows=self.rows)
            before = state.index
            for step in range(1, max_steps + 1):
                if not work.round(step):
                    break
            work.reduce()
            # generators that were tried and carry no weight are not worth pricing again
            state.reset(torch.cat([before, work.sets[work.sets >= 0]]))
            parts.append(work)
        if parts:
            back = order.argsort()
            width = max(p.sets.shape[1] for p in parts)
            pad = torch.nn.functional.pad
            sets = [pad(p.sets, (0, width - p.sets.shape[1]), value=-1) for p in parts]
            weights = [pad(p.weights, (0, width - p.sets.shape[1])) for p in parts]
            fields["support"] = torch.cat(sets)[back]
            fields["weights"] = torch.cat(weights)[back]
            fields["steps"] = torch.cat([p.steps for p in parts])[back]
        return HullProjection(**fields)


_CENTRES = 64
"""Queries that serve as centres of groups of similar ones."""


def _order(away: Tensor, first: int) -> Tensor:
    """Return an order of the rows: `first` of all kinds, then similar rows side by side."""
    count = len(away)
    unit = torch.nn.functional.normalize(away, dim=1)
    centres = unit[:: max(1, count // _CENTRES)]
    alike = (unit @ centres.T).argmax(dim=1).argsort(stable=True) if count else away[:, 0].long()
    place = torch.arange(count, device=away.device)
    step = max(1, count // max(first, 1))
    sampled = (place % step == 0) & (place < first * step)
    return torch.cat([alike[sampled], alike[~sampled]])


def _batches(total: int, first: int, size: int) -> Iterator[slice]:
    """Yield a small slice, then larger ones, that cover ``range(total)``."""
    start, stop = 0, min(first, total)
    while start < total:
        yield slice(start, stop)
        start, stop = stop, min(stop + size, total)
