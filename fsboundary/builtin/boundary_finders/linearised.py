"""Boundary points of non-linear heads, by successive linearisation.

Each step solves the flip problem of the linearised head exactly, then returns to the boundary
along the ray from the row. It starts from the row itself and from crossings on random rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.boundary_finders.tie_search import (
    Linearisation,
    TieSearch,
    nearest_on_linearisation,
)
from fsboundary.core.checks import check_integers
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.geometry.batching import MEMORY_BYTES, chunks
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips

_NUM_CUTS = 4
"""Linearisations from beyond kinks that constrain a step at once."""

_WHOLE_STEPS = 8
"""Whole steps before the first boundary point; shorter ones afterwards."""

_MAX_FAILED = 12
"""Consecutive steps that get no nearer; each second one is shorter by _SHORTER."""

_SHORTER = 0.3

_GAIN = 1e-9
_SETTLED = 1e-5
"""Fractions of the distance: a smaller gain is none, a smaller step is the last. The remaining
gain is of the order of the step's square."""

_LENGTHS = [4 * (step / 32) ** 2 for step in range(1, 33)]
"""Lengths of the rays, relative to the nearest distance so far or the length of the row."""

_ROUNDS = 2
_BESIDE = 0.05
"""Starts within this fraction of the distance from the best point are left out."""


@final
@dataclass(frozen=True, slots=True)
class Linearised(BoundaryFinder):
    """Near boundary points of heads that are any differentiable function of the features.

    Each step linearises the head, solves the flip problem of the linearisation exactly and
    returns to the boundary along the ray from the row; steps that get no nearer are shortened, or
    constrained by the linearisations on both sides of a kink. It starts from the row itself and
    from the nearest crossings on some rays, the same for every row. For a linear head the result
    is that of :class:`DualNewton`.

    Parameters
    ----------
    starts : int
        Number of crossings on rays that are followed, in each of two rounds.
    directions : int
        Number of rays, half of them opposite to the other half.
    thirds : int
        Largest number of third classes, those of largest logit, in a linearisation.
    seed : int
        Seed of the directions.
    """

    starts: int = 2
    directions: int = 32
    thirds: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(self, directions=self.directions)
        check_integers(self, 0, starts=self.starts, thirds=self.thirds, seed=self.seed)

    def find(
        self,
        head: LinearHead | NonlinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose boundary points of `features` (B,d); `max_steps` linearisations per entry."""
        if isinstance(head, LinearHead):
            return DualNewton().find(
                head, features, targets=targets, tolerance=tolerance, max_steps=max_steps
            )
        source, width = head.predict(features), targets.shape[1]
        fields = unsolved_flips(features, source, targets)
        points, steps = fields["points"].flatten(0, 1), fields["steps"].flatten()
        flat = targets.reshape(-1)
        rows = max(1, MEMORY_BYTES // (8 * (self.thirds + 2) * head.num_features))
        for part in chunks(len(flat), rows):
            index = torch.arange(part.start, part.stop, device=flat.device) // width
            search = TieSearch(head, features[index], source[index], flat[part], tolerance)
            steps[part] = self._search(search, max_steps)
            points[part] = search.best
        fields["points"], fields["steps"] = points.view_as(fields["points"]), steps.view_as(targets)
        return FlipPoints(**fields)

    def _search(self, search: TieSearch, max_steps: int) -> Tensor:
        """Store the best point of each problem in `search`; return the linearisations (P,)."""
        every = torch.arange(len(search.clean), device=search.clean.device)
        per_start = -(-max_steps // (1 + _ROUNDS * self.starts))
        spent = descend(search, every, search.clean, per_start, self.thirds)
        for turn in range(_ROUNDS):
            # the second time on the scale of the distances found
            starts = ray_starts(search, self.starts, self.directions, self.seed + turn)
            for start in starts:
                away = torch.linalg.vector_norm(start - search.best, dim=1)
                # a start beside the best so far leads there again; NaN compares false
                rows = (away > _BESIDE * search.distance).nonzero()[:, 0]
                left = min(per_start, max_steps - int(spent.max()))
                spent[rows] += descend(search, rows, start[rows], left, self.thirds)
        return spent


def descend(search: TieSearch, rows: Tensor, x: Tensor, steps: int, thirds: int) -> Tensor:
    """Move `x` (R,d) along the boundary to nearer points; `search` keeps the best.

    A step goes from a point of the boundary towards the flip point of the head linearised there,
    and back onto the boundary. If that is no nearer, the linearisation at the new point also
    constrains the next step: at a kink that points towards the row the solution lies on both.

    Returns
    -------
    Tensor (R,)
        Linearisations spent.
    """
    descent = _Descent(search, rows, x)
    for step in range(steps):
        if len(descent.left) == 0:
            break
        descent.advance(thirds, whole=step < _WHOLE_STEPS)
    return descent.spent


@final
class _Descent:
    """R points on the way to nearer ones, with their linearisations and step sizes.

    Attributes
    ----------
    left : Tensor (L,)
        Points that still move.
    spent : Tensor (R,)
        Linearisations spent.
    """

    def __init__(self, search: TieSearch, rows: Tensor, x: Tensor) -> None:
        count, width = x.shape
        self._search, self._rows = search, rows
        self.spent = torch.zeros_like(rows)
        self.left = torch.arange(count, device=rows.device)
        # a start on the boundary is kept
        landed, self._distance, _ = search.project_along_ray(rows, x)
        self._x = torch.where(torch.isfinite(self._distance)[:, None], landed, x)
        # where the head is linearised next
        self._at = self._x.clone()
        self._size, self._room = torch.ones_like(self._distance), torch.zeros_like(self._distance)
        self._failed = torch.zeros_like(rows)
        self._planes: Linearisation | None = None
        self._cuts = x.new_zeros(count, _NUM_CUTS, width)
        self._levels = x.new_zeros(count, _NUM_CUTS)

    def advance(self, thirds: int, *, whole: bool) -> None:
        """Take one step; `whole` unless points without a boundary point are to step shorter."""
        fresh, shorter = self._linearise(thirds)
        goal = self._goal(~shorter)
        x = self._x[self.left]
        fraction = torch.where(fresh | shorter, self._size[self.left], 1.0)
        trial = self._search.head.domain.clip(x + fraction[:, None] * (goal - x))
        self._land(goal, trial, whole)

    def _linearise(self, thirds: int) -> tuple[Tensor, Tensor]:
        """Linearise the head: anew after a gain, else as a cut.

        Returns
        -------
        (Tensor (L,), Tensor (L,))
            Whether the linearisation is new, and whether the step ignores cuts and is shorter.
        """
        left = self.left
        new = self._search.linearise(self._rows[left], self._at[left], thirds)
        self.spent[left] += 1
        if self._planes is None:
            self._planes = new
        fresh = (self._failed[left] == 0) | torch.isinf(self._distance[left])
        for name in Linearisation.__slots__:
            getattr(self._planes, name)[left[fresh]] = getattr(new, name)[fresh]
        self._cuts[left[fresh]], self._levels[left[fresh]] = 0.0, 0.0
        slot = (self._failed[left[~fresh]] - 1) % _NUM_CUTS
        self._cuts[left[~fresh], slot] = -new.normal[~fresh]
        self._levels[left[~fresh], slot] = -new.offset[~fresh]
        # with the cuts a whole step, without them a shorter one
        shorter = ~fresh & (self._failed[left] % 2 == 0)
        self._size[left] = torch.where(shorter, self._size[left] * _SHORTER, self._size[left])
        return fresh, shorter

    def _goal(self, use_cuts: Tensor) -> Tensor:
        """Return the points (L,d) nearest to the rows on the linearisations, cuts where used."""
        search, left, planes = self._search, self.left, self._planes
        assert planes is not None  # set by _linearise
        used = use_cuts.to(self._levels)
        cuts, cut_levels = (
            used[:, None, None] * self._cuts[left],
            used[:, None] * self._levels[left],
        )
        levels = planes.levels[left] - self._room[left, None]
        constrained = Linearisation(
            normal=planes.normal[left],
            offset=planes.offset[left],
            others=torch.cat([planes.others[left], cuts], dim=1),
            levels=torch.cat([levels, cut_levels], dim=1),
        )
        clean = search.clean[self._rows[left]]
        return nearest_on_linearisation(clean, search.head.domain, constrained, self._x[left])

    def _land(self, goal: Tensor, trial: Tensor, whole: bool) -> None:
        """Project the `trial` points (L,d) onto the boundary; accept those that are nearer."""
        left = self.left
        landed, distance, excess = self._search.project_along_ray(self._rows[left], trial)
        before = self._distance[left]
        nearer = distance < before * (1 - _GAIN)
        lost = torch.isinf(before) & ~nearer
        ends = self._is_settled(goal) & ~lost
        ends |= ~torch.isfinite(goal).all(dim=1)
        # third classes are kept lower where they came above, and released slowly
        room = self._room[left]
        room = torch.where((excess > 0) & ~nearer, torch.maximum(2 * excess, room), 0.25 * room)
        self._room[left] = room
        self._x[left[nearer]], self._distance[left[nearer]] = landed[nearer], distance[nearer]
        self._x[left[lost]] = trial[lost]
        self._at[left] = torch.where(lost[:, None], trial, landed)
        self._failed[left] = torch.where(nearer, 0, self._failed[left] + 1)
        size = self._size[left]
        self._size[left] = torch.where(nearer, (2 * size).clamp_max(1.0), size)
        if not whole:
            self._size[left[lost]] = 0.5
        self.left = left[~(ends | (self._failed[left] >= _MAX_FAILED) & ~lost)]

    def _is_settled(self, goal: Tensor) -> Tensor:
        """Return whether the step to `goal` (L,d) is negligible, (L,)."""
        move = torch.linalg.vector_norm(goal - self._x[self.left], dim=1)
        clean = self._search.clean[self._rows[self.left]]
        scale = torch.linalg.vector_norm(goal - clean, dim=1)
        settled: Tensor = ~(move > _SETTLED * scale)
        return settled


def ray_starts(search: TieSearch, count: int, directions: int, seed: int) -> list[Tensor]:
    """Return `count` tables (P,d) of boundary points, nearest first, NaN where there are fewer.

    The directions are the same for every row, so a row's result does not depend on its batch.
    """
    clean = search.clean
    total, width = clean.shape
    if count == 0 or total == 0:
        return []
    generator = torch.Generator().manual_seed(seed)
    shape = -(-directions // 2), width
    half = torch.randn(shape, generator=generator, dtype=torch.float32).to(clean)
    half = half / torch.linalg.vector_norm(half, dim=1, keepdim=True)
    units = torch.cat([half, -half])
    size: Tensor = torch.linalg.vector_norm(clean, dim=1)
    size = torch.where(size > 0, size, 1.0)
    size = torch.where(torch.isfinite(search.distance), search.distance, size)
    # every row with every direction
    rows = torch.arange(total, device=clean.device).repeat_interleave(len(units))
    rays = size[rows, None] * units.repeat(total, 1)
    ends = clean[rows]
    ahead = torch.arange(len(rows), device=clean.device)
    for length in _LENGTHS:
        at = search.head.domain.clip(clean[rows[ahead]] + length * rays[ahead])
        gap, slack = search.gaps(rows[ahead], search.logits(rows[ahead], at))
        ends[ahead] = at
        ahead = ahead[(gap > 0) | (slack < 0)]
    distance = torch.full_like(rays[:, 0], torch.inf)
    crossed = torch.ones_like(rows, dtype=torch.bool)
    crossed[ahead] = False
    landed, distance[crossed], _ = search.project_along_ray(rows[crossed], ends[crossed])
    ends[crossed] = landed
    ends[torch.isinf(distance)] = torch.nan
    order = distance.view(total, -1).argsort(dim=1, stable=True)[:, :count]
    indices = order + torch.arange(total, device=clean.device)[:, None] * len(units)
    return [ends[index] for index in indices.T]
