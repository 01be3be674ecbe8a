"""Column generation for one block of similar queries, started on a sample of the generators."""

from __future__ import annotations

import copy
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import INSIDE_FACTOR, SAFETY_FACTOR
from fsboundary.builtin.hull_solvers.min_norm_point import (
    ROUNDED_ZERO,
    min_norm_weights,
    reduce_support,
)
from fsboundary.core.protocols import PointSet
from fsboundary.core.rows import pad_columns
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.hulls.point_sets import PointSetStats, point_set_stats
from fsboundary.geometry.hulls.pricing import Priced

SAMPLE_SIZE = 2048
"""Generators in the sample. On real features the projection on their hull has nearly the residual
direction of the solution, which saves a pass over all; more cost more than they save."""

_RIDGE = 0.01
"""Ridge of the covariance, as a fraction of its mean eigenvalue: flat directions stay finite."""

_TINY = 1e-300
"""Keeps the covariance of one point invertible."""


@final
class Sample:
    """Evenly spaced generators of a point set, with their coordinates.

    Attributes
    ----------
    points : PointSet
    stats : PointSetStats
    index : Tensor (m,)
        Generators, ascending.
    values : Tensor (m, d), float64
    """

    def __init__(self, points: PointSet) -> None:
        self.points = points
        self.stats: PointSetStats = point_set_stats(points)
        count = min(len(points), SAMPLE_SIZE)
        step = len(points) // count
        self.index: Tensor = torch.arange(count, device=self.stats.mean.device) * step
        self.values = points.take(self.index).to(torch.float64)
        unit = self._unit(self.values)
        self._shift = _RIDGE * float(unit.square().sum(dim=1).mean()) / unit.shape[1] + _TINY
        # few points span few dimensions: their products are the smaller matrix
        self._few = count < unit.shape[1]
        products = unit @ unit.T if self._few else unit.T @ unit
        products.diagonal().add_(count * self._shift)
        self._factor = torch.linalg.cholesky(products)
        self._moved: dict[torch.device, Sample] = {}

    def to(self, device: torch.device) -> Sample:
        """Return the sample with its tensors on `device`, which are copied there once."""
        if device == self.values.device:
            return self
        if device not in self._moved:
            moved = copy.copy(self)
            moved.stats, moved._moved = self.stats.to(device), {}
            moved.index, moved.values = self.index.to(device), self.values.to(device)
            moved._factor = self._factor.to(device)
            self._moved[device] = moved
        return self._moved[device]

    def _unit(self, rows: Tensor) -> Tensor:
        return (rows - self.stats.mean) / self.stats.scale.clamp_min(_TINY)

    def outward(self, queries: Tensor) -> Tensor:
        """Return directions (B,d) in which the generators near `queries` (B,d) are extreme.

        The inverse of the covariance, times query less mean: the gradient of the Mahalanobis
        distance, which on real features points far better to the generators that will support the
        projection than the difference itself.
        """
        away = (queries - self.stats.mean).T
        if not self._few:
            return torch.cholesky_solve(away, self._factor).T
        # Woodbury's identity, times the ridge, as only the direction matters
        unit = self._unit(self.values)
        return (away - unit.T @ torch.cholesky_solve(unit @ away, self._factor)).T


_MAX_ROUNDS = 60
"""Rounds on the local generators between two passes over all generators."""

_LOCAL_FRACTION = 0.01
"""On the local generators, rows stop at this fraction of the relative gap that the last pass over
all left: the generators still missing are not local."""

_MAX_IN_PLAY = 2048
"""Local generators that stay in play from the second round on."""

_GROUP, _GROUPS = 16, 16
"""Generators per group, and number of groups of largest scores whose generators are examined: all
others are worse than the best of each of these."""

_ROWS = 256
"""Small programs solved together: few enough for a cache."""

_STALLED = 1 - 1e-12
"""A pass after which the squared distance is above this fraction of its minimum gained nothing."""

_PATIENCE = 3
"""Consecutive passes that may gain nothing."""


@final
class Block:
    """The sets of generators of R queries, grown until no generator lies beyond.

    The local generators are those of the sample, and later also those that passes over all
    generators find for any row of the block.

    Attributes
    ----------
    exclude : Tensor (R, E) or None
        Generators excluded for a row, -1 as padding.
    open_rows : Tensor
        Rows above their tolerance.
    residual : Tensor (R, d), float64
        Query minus projection.
    weights : Tensor (R, W), float64
        Weights of the generators of `support`, 0 as padding.
    steps : Tensor (R,)
        Passes over all generators.
    """

    def __init__(
        self,
        sample: Sample,
        queries: Tensor,
        exclude: Tensor | None,
        *,
        max_added: int,
        tolerance: float,
    ) -> None:
        self.queries, self.exclude, self.max_added = queries, exclude, max_added
        self._middle = sample.stats.mean
        self._narrow_queries = (queries - self._middle).to(torch.float32)
        self.gap_tolerance = SAFETY_FACTOR * tolerance
        self.squared_threshold = (INSIDE_FACTOR * sample.stats.scale).square()
        self._set_generators(sample.index, sample.values)
        self._in_play = torch.arange(len(sample.index), device=queries.device)
        self.open_rows = torch.arange(len(queries), device=queries.device)
        self.gap = torch.ones_like(queries[:, 0])
        self.steps = torch.zeros_like(self.open_rows)
        self._least = torch.full_like(self.gap, torch.inf)
        self._idle = torch.zeros_like(self.open_rows)
        # until its first program the residual of a row points away from the mean generator
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
        assert self.exclude is not None  # read only where there is one
        return self.exclude[self.open_rows]

    def start(self, part: slice, priced: Priced) -> None:
        """Set the first generators of every row, from the sample and a pass over all; solve."""
        self._merge(priced.indices[part], priced)
        self._append(self.open_rows, self._farthest(self.open_rows))
        self._solve_locally()

    def _solve_locally(self) -> None:
        """Solve the open rows to their tolerance on the local generators."""
        todo = self.open_rows[(self._sets[self.open_rows] >= 0).any(dim=1)]
        if len(todo) == 0:
            return
        self._solve(todo)
        self._in_play = self._prefilter(todo)
        play = self._narrow[self._in_play]
        apart = (self._narrow_queries[todo] @ play.T).mul_(-2).add_(play.square().sum(dim=1))
        # fresh memory of this size costs as much as the product that fills it
        buffer, at = torch.empty_like(apart), torch.arange(len(todo), device=todo.device)
        for _ in range(_MAX_ROUNDS):
            new = self._improving_candidates(todo, play, apart, at, buffer)
            go = (new >= 0).any(dim=1)
            todo, at, new = todo[go], at[go], new[go]
            if len(todo) == 0:
                return
            self._append(todo, new)
            self._solve(todo)

    def receive(self, part: slice, priced: Priced) -> None:
        """Add the generators that a pass over all found for the open rows, in order; solve."""
        self.steps[self.open_rows] += 1
        best, values = priced.best[part], priced.values[part]
        along, squared = self._residual_products(self.open_rows)
        solved = (self._sets[self.open_rows] >= 0).any(dim=1)
        along = torch.where(solved, along, -torch.inf)
        gap = torch.where(solved, (-best - along) / squared, 1.0)
        self.gap[self.open_rows] = gap
        ends = solved & ((gap <= self.gap_tolerance) | (squared <= self.squared_threshold))
        new = torch.where(-values > along[:, None], priced.indices[part], -1)
        # nothing new to add, or nothing gained beyond rounding: grading decides
        ends |= (new < 0).all(dim=1)
        gained = ~solved | (squared < _STALLED * self._least[self.open_rows])
        self._least[self.open_rows] = torch.where(
            gained & solved, squared, self._least[self.open_rows]
        )
        self._idle[self.open_rows] = torch.where(gained, 0, self._idle[self.open_rows] + 1)
        ends |= self._idle[self.open_rows] >= _PATIENCE
        self.open_rows, new = self.open_rows[~ends], new[~ends]
        self._merge(new, priced)
        position = torch.searchsorted(self._index, new.clamp_min(0))
        self._append(self.open_rows, torch.where(new >= 0, position, -1)[:, : self.max_added])
        self._solve_locally()

    def finish(self) -> None:
        """Make every row's support affinely independent."""
        width = self._sets.shape[1] * self.queries.shape[1]
        for part in chunks(len(self.queries), chunk_rows(width)):
            points = self._values[self._sets[part].clamp_min(0)] - self.queries[part][:, None]
            size = points.abs().amax(dim=(1, 2))
            outside = self.residual[part].norm(dim=1) > ROUNDED_ZERO * size
            self.weights[part] = reduce_support(points, self.weights[part], outside)
        self._sets = torch.where(self.weights > 0, self._sets, -1)

    def _set_generators(self, index: Tensor, values: Tensor) -> None:
        """Make these generators, ascending, the local ones."""
        self._index, self._values = index, values
        self._narrow = (values - self._middle).to(torch.float32)

    def _merge(self, new: Tensor, priced: Priced) -> None:
        """Make local the generators in play, those in a set, and the `new` ones."""
        used = torch.cat([self._in_play, self._sets[self._sets >= 0]]).unique()
        fresh = new[new >= 0].unique()
        index = torch.cat([self._index[used], fresh]).unique()
        values = self._values.new_empty(len(index), self._values.shape[1])
        values[torch.searchsorted(index, self._index[used])] = self._values[used]
        at = torch.searchsorted(priced.rows, fresh)
        values[torch.searchsorted(index, fresh)] = priced.points[at]
        position = torch.searchsorted(index, self._index[self._sets.clamp_min(0)])
        in_play = torch.cat([self._index[self._in_play], fresh]).unique()
        self._sets = torch.where(self._sets >= 0, position, -1)
        self._set_generators(index, values)
        self._in_play = torch.searchsorted(index, in_play)

    def _solve(self, rows: Tensor) -> None:
        """Project `rows` on the hulls of their sets; keep the generators that carry weight."""
        count = (self._sets[rows] >= 0).sum(dim=1)
        # rows with sets of similar size share a program, or the widest would slow all down
        rows = rows[count.argsort(stable=True)]
        for some in rows.split(chunk_rows(self._sets.shape[1] * self.queries.shape[1], _ROWS)):
            sets = _leftmost(self._sets[some], self._sets[some] >= 0)
            sets = sets[:, : _width(sets)]
            valid = sets >= 0
            shifted = self._values[sets.clamp_min(0)] - self.queries[some][:, None]
            weights = min_norm_weights(shifted, valid, valid)
            self.residual[some] = -(weights[:, None] @ shifted)[:, 0]
            width, used = self._sets.shape[1], weights > 0
            kept = _leftmost(torch.where(used, sets, -1), used)
            self._sets[some] = pad_columns(kept, width, -1)
            self.weights[some] = pad_columns(_leftmost(weights, used), width, 0)

    def _prefilter(self, rows: Tensor) -> Tensor:
        """Return the generators in play that score closest to the best of some row, ascending."""
        in_play = self._in_play
        if len(in_play) <= _MAX_IN_PLAY:
            return in_play
        away = torch.nn.functional.normalize(self.residual[rows].to(torch.float32), dim=1)
        scores = away @ self._narrow[in_play].T
        self._mask_excluded(scores, rows, in_play)
        behind = scores.sub_(scores.amax(dim=1, keepdim=True))
        closest = behind.nan_to_num_(-torch.inf).amax(dim=0)
        return in_play[closest.topk(_MAX_IN_PLAY).indices.sort().values]

    def _mask_excluded(self, scores: Tensor, rows: Tensor, in_play: Tensor) -> None:
        """Set the scores (B,m) of excluded generators to -inf."""
        if self.exclude is None:
            return
        index, exclude = self._index[in_play], self.exclude[rows]
        position = torch.searchsorted(index, exclude.clamp_min(0)).clamp_max(len(index) - 1)
        row, column = ((index[position] == exclude) & (exclude >= 0)).nonzero(as_tuple=True)
        scores[row, position[row, column]] = -torch.inf

    def _farthest(self, rows: Tensor) -> Tensor:
        """Return the generators in play (B,C) farthest along the residuals of `rows`."""
        scores = self.residual[rows].to(torch.float32) @ self._narrow[self._in_play].T
        self._mask_excluded(scores, rows, self._in_play)
        values, position = scores.topk(min(self.max_added, scores.shape[1]), dim=1)
        return torch.where(torch.isinf(values), -1, self._in_play[position])

    def _improving_candidates(
        self, rows: Tensor, play: Tensor, apart: Tensor, at: Tensor, buffer: Tensor
    ) -> Tensor:
        """Return the generators in play (B,C) that would shorten the residuals most; -1 for none.

        `apart`, whose rows `at` (B,) belong to `rows`, is |v|² - 2 q.v; `buffer` is scratch memory.
        A step from p towards v shortens |q - p|² by (r.(v - p))² / |v - p|², where r = q - p.
        """
        residual = self.residual[rows]
        projected = self.queries[rows] - self._middle - residual
        along = torch.linalg.vecdot(residual, projected)
        squared = torch.linalg.vecdot(residual, residual)
        narrow = residual.to(torch.float32)
        scores = torch.mm(narrow, play.T, out=buffer[: len(rows)])
        self._mask_excluded(scores, rows, self._in_play)
        position = _groups_ahead(scores)
        scores = scores.gather(1, position)
        length = (
            (scores * 2)
            .add_(apart[at[:, None], position])
            .add_(torch.linalg.vecdot(projected, projected).to(torch.float32)[:, None])
        )
        threshold = (_LOCAL_FRACTION * self.gap[rows]).clamp(self.gap_tolerance, 0.1) * squared
        gain = (scores - along.to(scores)[:, None]).clamp_min_(0.0)
        gain = torch.where(
            gain > threshold.to(scores)[:, None], gain.square_() / length.clamp_min_(1e-30), 0.0
        )
        values, best = gain.topk(min(self.max_added, gain.shape[1]), dim=1)
        position = self._in_play[position.gather(1, best)]
        new = torch.where((values > 0) & (squared > self.squared_threshold)[:, None], position, -1)
        known = (new[:, :, None] == self._sets[rows][:, None, :]).any(dim=2)
        return torch.where(known, -1, new)

    def _residual_products(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (q - p).p and |q - p|², (B,) each."""
        residual = self.residual[rows]
        along: Tensor = torch.linalg.vecdot(residual, self.queries[rows] - residual)
        squared: Tensor = torch.linalg.vecdot(residual, residual)
        return along, squared

    def _append(self, rows: Tensor, new: Tensor) -> None:
        """Append `new` (B,C) to the sets of `rows`, widening the table where needed."""
        if len(rows) == 0:
            return
        used = _width(self._sets[rows])
        stop = used + new.shape[1]
        if stop > self._sets.shape[1]:
            self._sets = pad_columns(self._sets, stop, -1)
            self.weights = pad_columns(self.weights, stop, 0)
        wide = self._sets[rows]
        wide[:, used:stop] = new
        self._sets[rows] = wide


def _groups_ahead(scores: Tensor) -> Tensor:
    """Return the columns of the groups in which the largest scores (B,m) lie, (B,c)."""
    length = scores.shape[1] // _GROUP
    if length <= _GROUPS:
        return torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    # strided groups: a maximum over neighbours is slower; the few remaining columns are always kept
    ahead = scores[:, : length * _GROUP].unflatten(1, (_GROUP, length)).amax(dim=1)
    members = torch.arange(_GROUP, device=scores.device)[:, None] * length
    columns = (ahead.topk(_GROUPS, dim=1, sorted=False).indices[:, None] + members).flatten(1)
    rest = torch.arange(length * _GROUP, scores.shape[1], device=scores.device)
    return torch.cat([columns, rest.expand(len(scores), -1)], dim=1)


def _leftmost(table: Tensor, mask: Tensor) -> Tensor:
    """Return `table` (B,S) with the entries of `mask` first in each row, in their order."""
    return table.gather(1, mask.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices)


def _width(sets: Tensor) -> int:
    """Return the number of leading columns of `sets` with a generator in some row."""
    used = (sets >= 0).any(dim=0).nonzero()
    return int(used[-1, 0]) + 1 if len(used) else 1
