"""A few generators, evenly taken, on which every hull projection starts.

Column generation for one block of similar queries.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import ON_HULL, SAFETY
from fsboundary.builtin.hull_solvers.min_norm_point import min_norm_weights, reduced
from fsboundary.core.protocols import PointSet
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.hulls.certify import Extent, extent
from fsboundary.geometry.hulls.pricing import Priced

SIZE = 2048
"""Generators in the sample. On real features the projection on their hull points nearly the way
of the answer, which saves a pass over all; more cost more than they save."""

_RIDGE = 0.01
"""Added to the covariance, as a share of its mean eigenvalue: flat directions stay finite."""

_TINY = 1e-300
"""Keeps the covariance of one point invertible."""


@final
class Sample:
    """Every so-many-th generator of a point set, with its coordinates at hand.

    Attributes
    ----------
    points : PointSet
    size : Extent
    index : Tensor (m,)
        Ascending.
    values : Tensor (m, d), float64
    """

    def __init__(self, points: PointSet) -> None:
        self.points = points
        self.size: Extent = extent(points)
        count = min(len(points), SIZE)
        self.index: Tensor = torch.arange(count, device=self.size.mean.device) * (
            len(points) // count
        )
        self.values = points.take(self.index).to(torch.float64)
        unit = (self.values - self.size.mean) / self.size.scale.clamp_min(_TINY)
        spread = unit.T @ unit / count
        spread.diagonal().add_(_RIDGE * spread.diagonal().mean() + _TINY)
        self._factor = torch.linalg.cholesky(spread)

    def outward(self, queries: Tensor) -> Tensor:
        """Return directions (B,d) in which the generators near `queries` (B,d) lie farthest out.

        The inverse of the covariance, times query less mean: the gradient of the Mahalanobis
        distance, which on real features points far better to the generators that will support the
        projection than the difference itself.
        """
        away: Tensor = torch.cholesky_solve((queries - self.size.mean).T, self._factor).T
        return away


_TURNS = 60
"""Turns on the generators at hand between two passes over all of them."""

_LOOSE = 0.01
"""On the generators at hand, rows stop at this share of the relative gap that the last pass over
all left: what is missing then is not at hand."""

_NEARBY = 2048
"""Generators at hand that stay in play from the second turn on."""

_GROUP, _GROUPS = 16, 16
"""Generators of a group, and groups of largest scores whose generators are looked at closely: all
others are worse than the best of each of these."""

_ROWS = 256
"""Small programs solved together: few enough for a cache."""

_STALLED = 1 - 1e-12
"""A pass after which the squared distance is above this share of its least gained nothing."""

_PATIENCE = 3
"""Passes in a row that may gain nothing."""


@final
class Block:
    """The sets of generators of R queries, grown until no generator lies beyond.

    The generators at hand are those of the sample, then also those that passes over all find for
    any row of the block.

    Attributes
    ----------
    exclude : Tensor (R, E) or None
        Generators that do not count in a row, -1 as padding.
    open : Tensor
        Rows that are not at their goal.
    residual : Tensor (R, d), float64
        Query less projection.
    weights : Tensor (R, W), float64
        Of the generators of `support`, 0 as padding.
    steps : Tensor (R,)
        Passes over all generators.
    """

    def __init__(
        self,
        sample: Sample,
        queries: Tensor,
        exclude: Tensor | None,
        *,
        added: int,
        tolerance: float,
    ) -> None:
        self.queries, self.exclude, self.added = queries, exclude, added
        self._middle = sample.size.mean
        self._narrow_queries = (queries - self._middle).to(torch.float32)
        self.goal, self.floor = SAFETY * tolerance, (ON_HULL * sample.size.scale).square()
        self._hold(sample.index, sample.values)
        self._near = torch.arange(len(sample.index), device=queries.device)
        self.open = torch.arange(len(queries), device=queries.device)
        self.gap = torch.ones_like(queries[:, 0])
        self.steps = torch.zeros_like(self.open)
        self._least, self._idle = torch.full_like(self.gap, torch.inf), torch.zeros_like(self.open)
        # until its first program a row looks outward from the middle of the generators
        self.residual = sample.outward(queries)
        self._sets = torch.full((len(queries), 1), -1, device=queries.device)
        self.weights = torch.zeros(self._sets.shape, dtype=torch.float64, device=queries.device)

    @property
    def support(self) -> Tensor:
        """Generators (R,W) of the sets, -1 as padding."""
        return torch.where(self._sets >= 0, self._index[self._sets.clamp_min(0)], -1)

    @property
    def excluded(self) -> Tensor:
        """Rows of `exclude` that are open."""
        assert self.exclude is not None  # asked for only where there is one
        return self.exclude[self.open]

    def start(self, part: slice, priced: Priced) -> None:
        """Give every row its first set, from the sample and from what a pass found; settle."""
        self._take_in(priced.indices[part], priced)
        self._join(self.open, self._farthest(self.open))
        self._settle()

    def _settle(self) -> None:
        """Solve the open rows to their goal on the generators at hand."""
        todo = self.open[(self._sets[self.open] >= 0).any(dim=1)]
        if len(todo) == 0:
            return
        self._solve(todo)
        self._near = self._closest(todo)
        play = self._narrow[self._near]
        apart = (self._narrow_queries[todo] @ play.T).mul_(-2).add_(play.square().sum(dim=1))
        # fresh memory of this size costs as much as the product that fills it
        held, at = torch.empty_like(apart), torch.arange(len(todo), device=todo.device)
        for _ in range(_TURNS):
            found = self._beyond(todo, play, apart, at, held)
            go = (found >= 0).any(dim=1)
            todo, at, found = todo[go], at[go], found[go]
            if len(todo) == 0:
                return
            self._join(todo, found)
            self._solve(todo)

    def receive(self, part: slice, priced: Priced) -> None:
        """Take in what a pass over all generators found for the open rows, in order; settle."""
        self.steps[self.open] += 1
        best, values = priced.best[part], priced.values[part]
        along, squared = self._sizes(self.open)
        solved = (self._sets[self.open] >= 0).any(dim=1)
        along = torch.where(solved, along, -torch.inf)
        gap = torch.where(solved, (-best - along) / squared, 1.0)
        self.gap[self.open] = gap
        ends = solved & ((gap <= self.goal) | (squared <= self.floor))
        found = torch.where(-values > along[:, None], priced.indices[part], -1)
        # nothing new to add, or nothing gained: rounding has the last word, and grading judges it
        ends |= (found < 0).all(dim=1)
        gained = ~solved | (squared < _STALLED * self._least[self.open])
        self._least[self.open] = torch.where(gained & solved, squared, self._least[self.open])
        self._idle[self.open] = torch.where(gained, 0, self._idle[self.open] + 1)
        ends |= self._idle[self.open] >= _PATIENCE
        self.open, found = self.open[~ends], found[~ends]
        self._take_in(found, priced)
        place = torch.searchsorted(self._index, found.clamp_min(0))
        self._join(self.open, torch.where(found >= 0, place, -1)[:, : self.added])
        self._settle()

    def finish(self) -> None:
        """Make every row's support affinely independent."""
        width = self._sets.shape[1] * self.queries.shape[1]
        for part in chunks(len(self.queries), chunk_rows(width)):
            points = self._values[self._sets[part].clamp_min(0)] - self.queries[part][:, None]
            outside = self.residual[part].square().sum(dim=1) > self.floor
            self.weights[part] = reduced(points, self.weights[part], outside)
        self._sets = torch.where(self.weights > 0, self._sets, -1)

    def _hold(self, index: Tensor, values: Tensor) -> None:
        """Have these generators, ascending, at hand."""
        self._index, self._values = index, values
        self._narrow = (values - self._middle).to(torch.float32)

    def _take_in(self, found: Tensor, priced: Priced) -> None:
        """Have at hand what is in play or in a set, and what was found."""
        used = torch.cat([self._near, self._sets[self._sets >= 0]]).unique()
        fresh = found[found >= 0].unique()
        index = torch.cat([self._index[used], fresh]).unique()
        values = self._values.new_empty(len(index), self._values.shape[1])
        values[torch.searchsorted(index, self._index[used])] = self._values[used]
        at = torch.searchsorted(priced.rows, fresh)
        values[torch.searchsorted(index, fresh)] = priced.points[at]
        place = torch.searchsorted(index, self._index[self._sets.clamp_min(0)])
        near = torch.cat([self._index[self._near], fresh]).unique()
        self._sets = torch.where(self._sets >= 0, place, -1)
        self._hold(index, values)
        self._near = torch.searchsorted(index, near)

    def _solve(self, rows: Tensor) -> None:
        """Project `rows` on the hulls of their sets; keep what carries weight."""
        count = (self._sets[rows] >= 0).sum(dim=1)
        # rows with sets of like size share a program, or the widest sets the pace of all
        rows = rows[count.argsort(stable=True)]
        for some in rows.split(chunk_rows(self._sets.shape[1] * self.queries.shape[1], _ROWS)):
            sets = _leftmost(self._sets[some], self._sets[some] >= 0)
            sets = sets[:, : _width(sets)]
            valid = sets >= 0
            shifted = self._values[sets.clamp_min(0)] - self.queries[some][:, None]
            weights = min_norm_weights(shifted, valid, valid)
            self.residual[some] = -(weights[:, None] @ shifted)[:, 0]
            spare = self._sets.shape[1] - sets.shape[1]
            pad = torch.nn.functional.pad
            used = weights > 0
            kept = _leftmost(torch.where(used, sets, -1), used)
            self._sets[some] = pad(kept, (0, spare), value=-1)
            self.weights[some] = pad(_leftmost(weights, used), (0, spare))

    def _closest(self, rows: Tensor) -> Tensor:
        """Return those in play that come closest to the best of some row, ascending."""
        near = self._near
        if len(near) <= _NEARBY:
            return near
        away = torch.nn.functional.normalize(self.residual[rows].to(torch.float32), dim=1)
        scores = away @ self._narrow[near].T
        self._strike(scores, rows, near)
        behind = scores.sub_(scores.amax(dim=1, keepdim=True))
        closest = behind.nan_to_num_(-torch.inf).amax(dim=0)
        return near[closest.topk(_NEARBY).indices.sort().values]

    def _strike(self, scores: Tensor, rows: Tensor, near: Tensor) -> None:
        """Set the scores (B,m) of excluded generators to -inf."""
        if self.exclude is None:
            return
        index, exclude = self._index[near], self.exclude[rows]
        place = torch.searchsorted(index, exclude.clamp_min(0)).clamp_max(len(index) - 1)
        row, column = ((index[place] == exclude) & (exclude >= 0)).nonzero(as_tuple=True)
        scores[row, place[row, column]] = -torch.inf

    def _farthest(self, rows: Tensor) -> Tensor:
        """Return the generators in play (B,C) farthest along the residuals of `rows`."""
        scores = self.residual[rows].to(torch.float32) @ self._narrow[self._near].T
        self._strike(scores, rows, self._near)
        values, place = scores.topk(min(self.added, scores.shape[1]), dim=1)
        return torch.where(torch.isinf(values), -1, self._near[place])

    def _beyond(
        self, rows: Tensor, play: Tensor, apart: Tensor, at: Tensor, held: Tensor
    ) -> Tensor:
        """Return the generators in play (B,C) that would shorten the residuals most; -1 for none.

        `apart`, whose rows `at` (B,) belong to `rows`, is |v|² - 2 q.v; `held` is room to work in.
        A step from p towards v shortens |q - p|² by (r.(v - p))² / |v - p|², where r = q - p.
        """
        residual = self.residual[rows]
        projected = self.queries[rows] - self._middle - residual
        along = torch.linalg.vecdot(residual, projected)
        squared = torch.linalg.vecdot(residual, residual)
        narrow = residual.to(torch.float32)
        scores = torch.mm(narrow, play.T, out=held[: len(rows)])
        self._strike(scores, rows, self._near)
        place = _groups_ahead(scores)
        scores = scores.gather(1, place)
        length = (
            (scores * 2)
            .add_(apart[at[:, None], place])
            .add_(torch.linalg.vecdot(projected, projected).to(torch.float32)[:, None])
        )
        goal = (_LOOSE * self.gap[rows]).clamp(self.goal, 0.1) * squared
        gain = (scores - along.to(scores)[:, None]).clamp_min_(0.0)
        gain = torch.where(
            gain > goal.to(scores)[:, None], gain.square_() / length.clamp_min_(1e-30), 0.0
        )
        values, best = gain.topk(min(self.added, gain.shape[1]), dim=1)
        place = self._near[place.gather(1, best)]
        found = torch.where((values > 0) & (squared > self.floor)[:, None], place, -1)
        known = (found[:, :, None] == self._sets[rows][:, None, :]).any(dim=2)
        return torch.where(known, -1, found)

    def _sizes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (q - p).p and |q - p|², (B,) each."""
        residual = self.residual[rows]
        along: Tensor = torch.linalg.vecdot(residual, self.queries[rows] - residual)
        squared: Tensor = torch.linalg.vecdot(residual, residual)
        return along, squared

    def _join(self, rows: Tensor, found: Tensor) -> None:
        """Append `found` (B,C) to the sets of `rows`, widening the table where needed."""
        if len(rows) == 0:
            return
        used = _width(self._sets[rows])
        stop = used + found.shape[1]
        lack = stop - self._sets.shape[1]
        if lack > 0:
            pad = torch.nn.functional.pad
            self._sets = pad(self._sets, (0, lack), value=-1)
            self.weights = pad(self.weights, (0, lack))
        wide = self._sets[rows]
        wide[:, used:stop] = found
        self._sets[rows] = wide


def _groups_ahead(scores: Tensor) -> Tensor:
    """Return the columns of the groups in which the largest scores (B,m) lie, (B,c)."""
    length = scores.shape[1] // _GROUP
    if length <= _GROUPS:
        return torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    # strided groups: a maximum over neighbours is slower; the few columns left over always count
    ahead = scores[:, : length * _GROUP].unflatten(1, (_GROUP, length)).amax(dim=1)
    members = torch.arange(_GROUP, device=scores.device)[:, None] * length
    columns = (ahead.topk(_GROUPS, dim=1, sorted=False).indices[:, None] + members).flatten(1)
    rest = torch.arange(length * _GROUP, scores.shape[1], device=scores.device)
    return torch.cat([columns, rest.expand(len(scores), -1)], dim=1)


def _leftmost(table: Tensor, mask: Tensor) -> Tensor:
    """Return `table` (B,S) with the entries of `mask` first in each row, in their order."""
    return table.gather(1, mask.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices)


def _width(sets: Tensor) -> int:
    """Return the number of leading columns of `sets` that hold a generator in some row."""
    used = (sets >= 0).any(dim=0).nonzero()
    return int(used[-1, 0]) + 1 if len(used) else 1
