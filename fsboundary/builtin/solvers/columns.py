"""Column generation for one batch of queries."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.solvers.pool import Pool
from fsboundary.geometry.chunks import chunks
from fsboundary.geometry.pricing import price_exact
from fsboundary.geometry.simplex import affinely_independent, min_norm_weights

_SAFETY = 0.5
"""Rows stop at this share of the tolerance, so that grading, which subtracts its own rounding,
does not fail for want of a digit."""

_POOL_ROUNDS = 30
"""Rounds on the pool between two passes over all generators."""

_LOOSE = 0.01
"""On the pool, rows stop at this share of the relative gap that the last pass over all generators
left: what is missing then is not in the pool."""

_NEARBY = 2048
"""Pool generators in play for a block of similar rows, besides those that a pass adds."""

_ON_HULL = 1e-10
"""Residuals below this share of the scale are inside: a tenth of what grading calls inside."""


@final
class Columns:
    """The sets of generators of B queries, grown until no generator lies beyond.

    Attributes
    ----------
    sets : Tensor (B, W)
        Generators, -1 as padding.
    weights : Tensor (B, W), float64
    steps : Tensor (B,)
        Passes over all generators.
    """

    def __init__(
        self,
        pool: Pool,
        queries: Tensor,
        exclude: Tensor | None,
        tolerance: float,
        *,
        added: int,
        rows: int,
    ) -> None:
        self.pool, self.queries, self.exclude = pool, queries, exclude
        self.goal, self.added, self.rows = _SAFETY * tolerance, added, rows
        self.open = torch.arange(len(queries), device=queries.device)
        self.gap = torch.ones_like(queries[:, 0])
        self.near: dict[int, Tensor] = {}
        self.steps = torch.zeros_like(self.open)
        away = queries - pool.size.mean
        sets = pool.best(away, added, exclude)[1] if len(pool.index) else None
        if sets is None or bool((sets[:, 0] < 0).any()):
            _, sets, _ = price_exact(pool.points, -away, pool.size.largest, exclude)
            pool.add(sets)
        self.sets = sets
        self.weights = torch.zeros(sets.shape, dtype=torch.float64, device=sets.device)
        self.residual = torch.zeros_like(queries)

    def round(self, step: int) -> bool:
        """Converge the open rows on the pool, then price all generators; False when all end."""
        for block in (self.open // self.rows).unique().tolist():
            self._on_pool(block, self.open[self.open // self.rows == block])
        if len(self.open) == 0:
            return False
        self.steps[self.open] = step
        skip = None if self.exclude is None else self.exclude[self.open]
        away = self.residual[self.open]
        sets = self.sets[self.open]
        best, found, values = price_exact(
            self.pool.points, -away, self.pool.size.largest, skip, sets[:, : _width(sets)]
        )
        along, squared = self._sizes(self.open, away)
        gap = (-best - along) / squared
        self.gap[self.open] = gap
        ends = (gap <= self.goal) | self._inside(squared)
        found = torch.where(-values > along[:, None], found, -1)
        # nothing new to add: rounding has the last word, and grading judges it
        ends |= (found < 0).all(dim=1)
        self.open, found = self.open[~ends], found[~ends]
        self.pool.add(found)
        self._join(self.open, found)
        for block, near in self.near.items():
            fresh = found[self.open // self.rows == block]
            self.near[block] = torch.cat([near, fresh[fresh >= 0]]).unique()
        return len(self.open) > 0

    def reduce(self) -> None:
        """Make every row's support affinely independent."""
        for part in chunks(len(self.queries), self.rows):
            points = self.pool.values[self.pool.place(self.sets[part])]
            self.weights[part] = affinely_independent(points, self.weights[part])
        self.sets = torch.where(self.weights > 0, self.sets, -1)

    def _on_pool(self, block: int, todo: Tensor) -> None:
        """Solve the rows `todo` of a block to the goal on the pool's generators."""
        for _ in range(_POOL_ROUNDS):
            residual = self._solve(todo)
            skip = None if self.exclude is None else self.exclude[todo]
            near = self.near.get(block)
            values, found, near = self.pool.best(residual, self.added, skip, near, _NEARBY)
            self.near[block] = near
            along, squared = self._sizes(todo, residual)
            goal = (_LOOSE * self.gap[todo]).clamp(self.goal, 0.1)
            new = values - along[:, None] > (goal * squared)[:, None]
            found = self._unknown(todo, torch.where(new, found, -1))
            go = (found >= 0).any(dim=1) & ~self._inside(squared)
            todo, found = todo[go], found[go]
            if len(todo) == 0:
                return
            self._join(todo, found)

    def _solve(self, rows: Tensor) -> Tensor:
        """Project `rows` on the hulls of their sets; keep what carries weight; return q - p."""
        sets = self.sets[rows]
        sets = sets[:, : _width(sets)]
        valid = sets >= 0
        shifted = self.pool.values[self.pool.place(sets)] - self.queries[rows][:, None]
        weights = min_norm_weights(shifted, valid, valid)
        residual = -(weights[:, None] @ shifted)[:, 0]
        used = weights > 0
        order = used.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
        spare = self.sets.shape[1] - sets.shape[1]
        pad = torch.nn.functional.pad
        kept = torch.where(used, sets, -1).gather(1, order)
        self.sets[rows] = pad(kept, (0, spare), value=-1)
        self.weights[rows] = pad(weights.gather(1, order), (0, spare))
        self.residual[rows] = residual
        return residual

    def _sizes(self, rows: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return (q - p).p and |q - p|², (B,) each."""
        projected = self.queries[rows] - residual
        along: Tensor = torch.linalg.vecdot(residual, projected)
        squared: Tensor = torch.linalg.vecdot(residual, residual)
        return along, squared

    def _inside(self, squared: Tensor) -> Tensor:
        return squared <= (_ON_HULL * self.pool.size.scale).square()

    def _unknown(self, rows: Tensor, found: Tensor) -> Tensor:
        """Return `found` (B,C) with -1 for what the row's set holds already."""
        known = (found[:, :, None] == self.sets[rows][:, None, :]).any(dim=2)
        return torch.where(known, -1, found)

    def _join(self, rows: Tensor, found: Tensor) -> None:
        """Append `found` (B,C) to the sets of `rows`, widening the table where needed."""
        if len(rows) == 0:
            return
        used = _width(self.sets[rows])
        stop = used + found.shape[1]
        lack = stop - self.sets.shape[1]
        if lack > 0:
            pad = torch.nn.functional.pad
            self.sets = pad(self.sets, (0, lack), value=-1)
            self.weights = pad(self.weights, (0, lack))
        wide = self.sets[rows]
        wide[:, used:stop] = found
        self.sets[rows] = wide


def _width(sets: Tensor) -> int:
    """Return the number of leading columns of `sets` that hold a generator in some row."""
    used = (sets >= 0).any(dim=0).nonzero()
    return int(used[-1, 0]) + 1 if len(used) else 1
