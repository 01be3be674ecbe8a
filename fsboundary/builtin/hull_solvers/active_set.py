"""The default hull solver: batched column generation with exact small programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.builtin.hull_solvers.active_set_block import Block, Sample
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.batching import chunks
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls

_MEMORY = 2**28
"""Bytes that the generators found in one pass may take."""

_CENTRES = 64
"""Queries that serve as centres of groups of similar ones."""


@final
@dataclass(frozen=True, slots=True)
class ActiveSet(HullSolver):
    """Exact projections: price many generators at once, keep the few that carry weight.

    Each row keeps a small set of generators and the exact projection on their hull. The
    generators farthest along the residual join, first from those that its block of similar rows
    has found so far, then, to end, from all; those whose weight falls to zero leave (Wolfe 1976;
    design.md, "Hull of the training set").

    Parameters
    ----------
    added : int
        Generators that may join a row's set in one round.
    candidates : int
        Generators that a pass over all finds for each row.
    every, scouted : int
        To begin, every so-many-th row of a block finds so many generators in the direction in
        which they lie farthest out, for all rows of the block.
    batch : int
        Queries that share a pass over all generators.
    rows : int
        Similar queries that share what they find.
    """

    added: int = 8
    candidates: int = 24
    every: int = 8
    scouted: int = 64
    batch: int = 4096
    rows: int = 512

    def prepare(self, points: PointSet) -> Sample:
        """Return the state: sizes of the point set and a sample of it."""
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
        fields = unsolved_hulls(queries)
        order = _order(queries - state.size.mean)
        fit = _MEMORY // (8 * self.candidates * max(1, queries.shape[1]))
        blocks: list[Block] = []
        with _workers() as each:
            for part in chunks(len(queries), max(1, min(self.batch, fit))):
                fresh = [
                    Block(
                        state,
                        queries[rows],
                        None if exclude is None else exclude[rows],
                        added=self.added,
                        tolerance=tolerance,
                    )
                    for rows in order[part].split(self.rows)
                ]
                self._solve(state, fresh, max_steps, each)
                blocks += fresh
        if blocks:
            back = order.argsort()
            fields["support"] = _joined([b.support for b in blocks], -1)[back]
            fields["weights"] = _joined([b.weights for b in blocks], 0.0)[back]
            fields["normal"] = torch.cat([b.residual for b in blocks])[back]
            fields["steps"] = torch.cat([b.steps for b in blocks])[back]
        return HullProjection(**fields)

    def _solve(self, state: Sample, blocks: list[Block], max_steps: int, each: _Each) -> None:
        """Settle the blocks, price all generators for what is open, and so on."""
        self._scout(state, blocks, each)
        for _ in range(max_steps):
            left = [b for b in blocks if len(b.open)]
            if not left:
                break
            skip = None if left[0].exclude is None else torch.cat([b.excluded for b in left])
            priced = price_exact(
                state.points,
                torch.cat([-b.residual[b.open] for b in left]),
                state.size.largest,
                skip,
                _joined([b.support[b.open] for b in left], -1),
                candidates=self.candidates,
            )
            each(partial(Block.receive, priced=priced), left, _parts([len(b.open) for b in left]))
        each(Block.finish, blocks)

    def _scout(self, state: Sample, blocks: list[Block], each: _Each) -> None:
        """Find generators for a few rows of each block: similar rows share them."""
        some = [torch.arange(0, len(b.open), self.every, device=b.open.device) for b in blocks]
        pairs = list(zip(blocks, some, strict=True))
        skip = None if blocks[0].exclude is None else torch.cat([b.excluded[i] for b, i in pairs])
        away = torch.cat([-b.residual[i] for b, i in pairs])
        priced = price_exact(state.points, away, state.size.largest, skip, candidates=self.scouted)
        each(partial(Block.start, priced=priced), blocks, _parts([len(i) for i in some]))


_Each = Callable[..., None]
"""Calls a function with the items of one list or more, as map does."""


@contextmanager
def _workers() -> Iterator[_Each]:
    """Yield a loop over blocks that uses as many threads as torch may.

    The small programs of a block are too small to be cut up, and blocks share nothing: one thread
    a block is nearly twice as fast on two cores as two threads an operation.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield _one_by_one
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def together(do: Callable[..., None], *items: list[Any]) -> None:
            # the list raises what a block raised
            list(pool.map(do, *items))

        try:
            yield together
        finally:
            # torch keeps the last setting of any thread for threads to come
            pool.submit(torch.set_num_threads, count).result()


def _one_by_one(do: Callable[..., None], *items: list[Any]) -> None:
    for item in zip(*items, strict=True):
        do(*item)


def _parts(counts: list[int]) -> list[slice]:
    """Return the slices that cut a table into parts of so many rows."""
    stops = list(accumulate(counts))
    return [slice(stop - count, stop) for stop, count in zip(stops, counts, strict=True)]


def _joined(tables: list[Tensor], padding: float) -> Tensor:
    """Return tables of several widths one above the other."""
    width = max(table.shape[1] for table in tables)
    pad = torch.nn.functional.pad
    return torch.cat([pad(t, (0, width - t.shape[1]), value=padding) for t in tables])


def _order(away: Tensor) -> Tensor:
    """Return an order of the rows that has similar ones side by side."""
    if len(away) == 0:
        return torch.arange(0, device=away.device)
    unit = torch.nn.functional.normalize(away, dim=1)
    centres = unit[:: max(1, len(away) // _CENTRES)]
    return (unit @ centres.T).argmax(dim=1).argsort(stable=True)
