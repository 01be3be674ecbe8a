"""The default hull solver: batched column generation with exact small programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.hull_solvers.active_set_block import Block, Sample
from fsboundary.builtin.hull_solvers.min_norm_point import few_points_weights
from fsboundary.core.checks import check_integers
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.rows import cat_ragged
from fsboundary.geometry.batching import chunks
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls
from fsboundary.threads import map_in_threads

_MEMORY = 2**28
"""Largest memory of the generators found in one pass, in bytes."""

_CENTRES = 64
"""Number of queries that serve as centres of groups of similar ones."""


@final
@dataclass(frozen=True, slots=True)
class ActiveSet(HullSolver):
    """Exact projections: price many generators at once, keep the few that carry weight.

    Each row keeps a small set of generators and the exact projection on their hull. The
    generators farthest along the residual join, first from those that its block of similar rows
    has found so far, finally from all; those whose weight falls to zero leave (Wolfe 1976;
    design.md, "Hull of the training set").

    Parameters
    ----------
    max_added : int
        Largest number of generators that join a row's set in one round.
    candidates : int
        Number of generators that a pass over all finds for each row.
    scout_stride : int
        Spacing of the rows of a block that first find generators for the whole block, in the
        direction in which the generators are extreme.
    scout_candidates : int
        Number of generators that each of these rows finds.
    batch_size : int
        Number of queries that share a pass over all generators.
    block_size : int
        Number of similar queries that share the generators they find.
    """

    max_added: int = 8
    candidates: int = 24
    scout_stride: int = 8
    scout_candidates: int = 64
    batch_size: int = 4096
    block_size: int = 512

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(
            self,
            max_added=self.max_added,
            candidates=self.candidates,
            scout_stride=self.scout_stride,
            scout_candidates=self.scout_candidates,
            batch_size=self.batch_size,
            block_size=self.block_size,
        )

    def prepare(self, points: PointSet) -> Sample:
        """Return the state: statistics of the point set and a sample of it."""
        return Sample(points)

    def project(
        self,
        state: Sample,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        state = state.to(queries.device)
        fields = unsolved_hulls(queries)
        order = _order_by_similarity(queries - state.stats.mean)
        fit = _MEMORY // (8 * self.candidates * max(1, queries.shape[1]))
        blocks: list[Block] = []
        for part in chunks(len(queries), max(1, min(self.batch_size, fit))):
            fresh = [
                Block(
                    state,
                    queries[rows],
                    None if exclude is None else exclude[rows],
                    max_added=self.max_added,
                    tolerance=tolerance,
                )
                for rows in order[part].split(self.block_size)
            ]
            self._solve(state, fresh, max_steps)
            blocks += fresh
        if blocks:
            back = order.argsort()
            fields["support"] = cat_ragged([b.support for b in blocks], -1)[back]
            fields["weights"] = cat_ragged([b.weights for b in blocks], 0.0)[back]
            fields["steps"] = torch.cat([b.steps for b in blocks])[back]
        return HullProjection(**fields)

    def weights_of_few(self, points: Tensor, valid: Tensor) -> Tensor:
        """Return simplex weights (B,S) of the least-norm point of each row's own hull.

        Parameters
        ----------
        points : Tensor (B, S, d), float64
            Generators less the query of each row, 0 where not valid.
        valid : Tensor (B, S), bool
            Which of them are generators, at least one per row.
        """
        return few_points_weights(points, valid)

    def _solve(self, state: Sample, blocks: list[Block], max_steps: int) -> None:
        """Solve the blocks locally, price all generators for the open rows, and repeat."""
        self._scout(state, blocks)
        device = state.stats.mean.device
        for _ in range(max_steps):
            left = [b for b in blocks if len(b.open_rows)]
            if not left:
                break
            skip = None if left[0].exclude is None else torch.cat([b.excluded for b in left])
            priced = price_exact(
                state.points,
                torch.cat([-b.residual[b.open_rows] for b in left]),
                state.stats.largest,
                skip,
                cat_ragged([b.support[b.open_rows] for b in left], -1),
                candidates=self.candidates,
            )
            map_in_threads(
                device,
                partial(Block.receive, priced=priced),
                left,
                _slices([len(b.open_rows) for b in left]),
            )
        map_in_threads(device, Block.finish, blocks)

    def _scout(self, state: Sample, blocks: list[Block]) -> None:
        """Find generators for a few rows of each block; similar rows share them."""
        some = [
            torch.arange(0, len(b.open_rows), self.scout_stride, device=b.open_rows.device)
            for b in blocks
        ]
        pairs = list(zip(blocks, some, strict=True))
        skip = None if blocks[0].exclude is None else torch.cat([b.excluded[i] for b, i in pairs])
        away = torch.cat([-b.residual[i] for b, i in pairs])
        priced = price_exact(
            state.points, away, state.stats.largest, skip, candidates=self.scout_candidates
        )
        device = state.stats.mean.device
        map_in_threads(
            device, partial(Block.start, priced=priced), blocks, _slices([len(i) for i in some])
        )


def _slices(counts: list[int]) -> list[slice]:
    """Return the slices that split a table into parts of `counts` rows."""
    stops = list(accumulate(counts))
    return [slice(stop - count, stop) for stop, count in zip(stops, counts, strict=True)]


def _order_by_similarity(away: Tensor) -> Tensor:
    """Return an order of the rows in which similar ones are adjacent."""
    if len(away) == 0:
        return torch.arange(0, device=away.device)
    unit = torch.nn.functional.normalize(away, dim=1)
    centres = unit[:: max(1, len(away) // _CENTRES)]
    return (unit @ centres.T).argmax(dim=1).argsort(stable=True)
