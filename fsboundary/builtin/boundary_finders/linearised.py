"""Boundary points of a non-linear head: the head seen from the rows, and the best so far.

The flip problem of a linearised head, another one for each row, solved exactly.

From one start to a boundary point that is nearest in its neighbourhood.

Places to start from: where rays in random directions first meet the boundary.

Boundary points of non-linear heads, by successive linearisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import crossing
from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.geometry.batching import MEMORY_BYTES, chunks
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import flip_start
from fsboundary.geometry.flips.solve import Proofs, search
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips

_OUTWARDS = (1.0, 1.0001, 1.01, 1.1, 1.5, 2.5)
"""A point that falls short of the boundary is moved out along its ray by these factors."""

_SHARE = 0.1
"""Points are brought this much nearer to the tie than the core asks."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planes:
    """A head linearised at some points: the tie and third classes as planes of their rows.

    ``normal.x + offset`` (R,d), (R,) is source minus target; ``others.x + levels`` (R,M,d), (R,M)
    is target minus third class.
    """

    normal: Tensor
    offset: Tensor
    others: Tensor
    levels: Tensor


@final
class TieSearch:
    """P problems, a row, its source and a target each, on the way to the boundary.

    Parameters
    ----------
    head : NonlinearHead
    clean : Tensor (P, d), float64
    source, target : Tensor (P,)
    tolerance : float
        Share of the range of the logits within which logits tie.

    Attributes
    ----------
    best : Tensor (P, d)
        The nearest boundary point so far; NaN where none was found.
    distance : Tensor (P,)
        Of ``best``; +inf where none was found.
    """

    def __init__(
        self, head: NonlinearHead, clean: Tensor, source: Tensor, target: Tensor, tolerance: float
    ) -> None:
        self.head, self.clean = head, clean
        self._pair = torch.stack([source, target], dim=1)
        self._close = _SHARE * tolerance
        at_rows = self.logits(target, clean)
        self._range = at_rows.amax(dim=1) - at_rows.amin(dim=1)
        self.best = torch.full_like(clean, torch.nan)
        self.distance = torch.full_like(clean[:, 0], torch.inf)

    def logits(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return logits (R,K) of `x` (R,d), without a graph."""
        with torch.no_grad():
            return self.head.logits(x)

    def gaps(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return source minus target and the slack to third classes, tolerance added, (R,)."""
        pair = logits.gather(1, self._pair[rows])
        third = logits.scatter(1, self._pair[rows], -torch.inf).amax(dim=1)
        slack = pair.amax(dim=1) - third + self._close * self.scale(rows, logits)
        return pair[:, 0] - pair[:, 1], slack

    def scale(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits, or that at the row if it is larger.

        With two classes there is no range left at a tie.
        """
        return torch.maximum(self._range[rows], logits.amax(dim=1) - logits.amin(dim=1))

    def planes(self, rows: Tensor, x: Tensor, thirds: int) -> Planes:
        """Return the head linearised at `x` (R,d), with the `thirds` largest third classes."""
        pair = self._pair[rows]
        rest = self.logits(rows, x).scatter(1, pair, -torch.inf)
        chosen = rest.topk(min(thirds, rest.shape[1] - 2), dim=1).indices
        classes = torch.cat([pair, chosen], dim=1)
        logits, gradients = self.head.gradients(x, classes)
        values = logits.gather(1, classes)
        constants = values - torch.einsum("rmd,rd->rm", gradients, x)
        return Planes(
            normal=gradients[:, 0] - gradients[:, 1],
            offset=constants[:, 0] - constants[:, 1],
            others=gradients[:, 1:2] - gradients[:, 2:],
            levels=constants[:, 1:2] - constants[:, 2:],
        )

    def land(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bring `x` (R,d) onto the boundary along the rays from the clean rows.

        The nearest is remembered.

        Returns
        -------
        (Tensor (R, d), Tensor (R,), Tensor (R,))
            Where it got to; its distance, +inf where that is no boundary point; by how much third
            classes are above, logit units.
        """
        points, behind = x.clone(), self._behind(rows, x)
        off = (behind > 0).nonzero()[:, 0]
        moved = self._across(rows[off], x[off])
        met, found = crossing(self, rows[off], moved, self._close)
        # a third class may be above on the whole ray and not at its end
        points[off[found]] = met[found]
        behind[off] = self._behind(rows[off], points[off])
        distance: Tensor = torch.linalg.vector_norm(points - self.clean[rows], dim=1)
        distance = torch.where(behind <= 0, distance, torch.inf)
        # rows may come several times
        before = self.distance.clone()
        self.distance.scatter_reduce_(0, rows, distance, "amin")
        nearer = (distance < before[rows]) & (distance == self.distance[rows])
        self.best[rows[nearer]] = points[nearer]
        _, slack = self.gaps(rows, self.logits(rows, points))
        return points, distance, (-slack).clamp_min(0.0)

    def _behind(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return by how much `x` (R,d) miss being boundary points, at most 0 if none, (R,)."""
        logits = self.logits(rows, x)
        gap, slack = self.gaps(rows, logits)
        span = self.scale(rows, logits)
        missed = torch.maximum(gap.abs() - self._close * span, -slack)
        return torch.where(span > 0, missed, torch.inf)

    def _across(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return `x` (R,d), moved out along their rays until the target is above the source."""
        clean, ends = self.clean[rows], x.clone()
        short = torch.arange(len(rows), device=rows.device)
        for factor in _OUTWARDS:
            if len(short) == 0:
                break
            moved = clean[short] + factor * (x[short] - clean[short])
            ends[short] = self.head.domain.clip(moved)
            gap, _ = self.gaps(rows[short], self.logits(rows[short], ends[short]))
            short = short[gap > 0]
        return ends


_RTOL, _STEPS = 1e-11, 60
"""Of the dual Newton method; far below what the boundary is met with."""


def nearest_on_planes(
    z: Tensor,
    domain: Domain,
    normal: Tensor,
    offset: Tensor,
    others: Tensor,
    levels: Tensor,
    fallback: Tensor,
) -> Tensor:
    """Return the point (R,d) of the domain nearest to `z` on the first plane, above the others.

    Where the tie's projection meets everything else it is the answer; the other rows are solved
    one by one. Where there is no such point, a step from `fallback` to the plane alone.

    Parameters
    ----------
    z, fallback : Tensor (R, d), float64
    normal, offset : Tensor (R, d), Tensor (R,)
        ``normal.x + offset = 0``.
    others, levels : Tensor (R, M, d), Tensor (R, M)
        ``others.x + levels >= 0``; zero rows ask for nothing.
    """
    goal = _onto(z, normal, offset)
    slack = torch.einsum("rmd,rd->rm", others, goal) + levels
    # not(>=) so that rows with NaN are not taken for solved
    hard = ~((slack >= 0).all(dim=1) & domain.contains(goal))
    for row in hard.nonzero()[:, 0].tolist():
        used = (others[row] != 0).any(dim=1)
        weight = torch.cat([normal[row, None], torch.zeros_like(z[:1]), -others[row, used]])
        bias = torch.cat([offset[row, None], torch.zeros_like(offset[:1]), -levels[row, used]])
        solved = None
        if bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
            solved = _solve(LinearHead(weight, bias, domain), z[row, None])
        if solved is None:
            near = fallback[row, None]
            solved = domain.clip(_onto(near, normal[row, None], offset[row, None]))
        goal[row] = solved[0]
    return goal


def _onto(x: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Return `x` (R,d) projected on the planes; NaN where they have no normal."""
    value = torch.linalg.vecdot(normal, x) + offset
    square = torch.linalg.vecdot(normal, normal)
    out: Tensor = x - (value / square)[:, None] * normal
    return out


def _solve(head: LinearHead, z: Tensor) -> Tensor | None:
    """Return the flip point (1,d) of class 0 and target 1; None where there is none."""
    first = torch.zeros(1, dtype=torch.int64, device=z.device)
    problems = FlipProblems(head=head, z=z, source=first, target=first + 1)
    found = search(problems, flip_start(problems), Proofs(head, 0), _RTOL, _STEPS)
    fine = bool(found.solved.all()) and bool(torch.isfinite(found.points).all())
    return found.points if fine else None


_CUTS = 4
"""Linearisations from beyond kinks that are minded at once."""

_FREE = 8
"""Whole steps before the first boundary point; shorter ones afterwards."""

_GIVE_UP = 12
"""Steps in a row that get no nearer; each second one is shorter by _SHORTER."""

_SHORTER = 0.3

_GAIN = 1e-9
_SETTLED = 1e-5
"""Shares of the distance: a smaller gain is none, a smaller step is the end. What is left to gain
is of the order of the step's square."""


def descend(search: TieSearch, rows: Tensor, x: Tensor, steps: int, thirds: int) -> Tensor:
    """Move `x` (R,d) along the boundary to nearer points; the search keeps the best.

    A step goes from a point of the boundary towards the flip point of the head linearised there,
    and back onto the boundary. If that is no nearer, the linearisation from where it got to is
    minded too: at a kink that points towards the row the answer lies on both.

    Returns
    -------
    Tensor (R,)
        Linearisations spent.
    """
    count, width = x.shape
    spent = torch.zeros_like(rows)
    left = torch.arange(count, device=rows.device)
    # a start on the boundary is kept
    landed, here, _ = search.land(rows, x)
    x = torch.where(torch.isfinite(here)[:, None], landed, x)
    at = x.clone()
    size, room = torch.ones_like(here), torch.zeros_like(here)
    failed = torch.zeros_like(rows)
    planes: Planes | None = None
    cuts = x.new_zeros(count, _CUTS, width)
    levels = x.new_zeros(count, _CUTS)
    for step in range(steps):
        if len(left) == 0:
            break
        new = search.planes(rows[left], at[left], thirds)
        spent[left] += 1
        if planes is None:
            planes = new
        fresh = (failed[left] == 0) | torch.isinf(here[left])
        _store(planes, left[fresh], new, fresh)
        cuts[left[fresh]], levels[left[fresh]] = 0.0, 0.0
        slot = (failed[left[~fresh]] - 1) % _CUTS
        cuts[left[~fresh], slot] = -new.normal[~fresh]
        levels[left[~fresh], slot] = -new.offset[~fresh]
        # with the cuts a whole step, without them a shorter one
        shorter = ~fresh & (failed[left] % 2 == 0)
        size[left] = torch.where(shorter, size[left] * _SHORTER, size[left])
        minded = (~shorter).to(levels)
        goal = nearest_on_planes(
            search.clean[rows[left]],
            search.head.domain,
            planes.normal[left],
            planes.offset[left],
            torch.cat([planes.others[left], minded[:, None, None] * cuts[left]], dim=1),
            torch.cat(
                [planes.levels[left] - room[left, None], minded[:, None] * levels[left]], dim=1
            ),
            x[left],
        )
        part = torch.where(fresh | shorter, size[left], 1.0)
        trial = search.head.domain.clip(x[left] + part[:, None] * (goal - x[left]))
        landed, distance, over = search.land(rows[left], trial)
        before = here[left]
        nearer = distance < before * (1 - _GAIN)
        lost = torch.isinf(before) & ~nearer
        move = torch.linalg.vector_norm(goal - x[left], dim=1)
        scale = torch.linalg.vector_norm(goal - search.clean[rows[left]], dim=1)
        ends = ~(move > _SETTLED * scale) & ~lost
        ends |= ~torch.isfinite(goal).all(dim=1)
        # third classes are kept lower where they came above, and let up slowly
        room[left] = torch.where(
            (over > 0) & ~nearer, torch.maximum(2 * over, room[left]), 0.25 * room[left]
        )
        x[left[nearer]], here[left[nearer]] = landed[nearer], distance[nearer]
        x[left[lost]] = trial[lost]
        at[left] = torch.where(lost[:, None], trial, landed)
        failed[left] = torch.where(nearer, 0, failed[left] + 1)
        size[left] = torch.where(nearer, (2 * size[left]).clamp_max(1.0), size[left])
        if step >= _FREE:
            size[left[lost]] = 0.5
        left = left[~(ends | (failed[left] >= _GIVE_UP) & ~lost)]
    return spent


def _store(planes: Planes, index: Tensor, new: Planes, chosen: Tensor) -> None:
    for name in Planes.__slots__:
        getattr(planes, name)[index] = getattr(new, name)[chosen]


_LENGTHS = [4 * (step / 32) ** 2 for step in range(1, 33)]
"""Of the rays, times the nearest distance so far, or the length of the row."""


def ray_starts(search: TieSearch, count: int, directions: int, seed: int) -> list[Tensor]:
    """Return `count` tables (P,d) of boundary points, nearest first, NaN where there are fewer.

    The directions are the same for every row, so a row's answer does not depend on its batch.
    """
    clean = search.clean
    total, width = clean.shape
    if count == 0 or total == 0:
        return []
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(-(-directions // 2), width, generator=generator).to(clean)
    half = half / torch.linalg.vector_norm(half, dim=1, keepdim=True)
    ways = torch.cat([half, -half])
    size: Tensor = torch.linalg.vector_norm(clean, dim=1).clamp_min(1.0)
    size = torch.where(torch.isfinite(search.distance), search.distance, size)
    # every row with every way
    rows = torch.arange(total, device=clean.device).repeat_interleave(len(ways))
    rays = size[rows, None] * ways.repeat(total, 1)
    ends = clean[rows]
    ahead = torch.arange(len(rows), device=clean.device)
    for length in _LENGTHS:
        at = search.head.domain.clip(clean[rows[ahead]] + length * rays[ahead])
        gap, slack = search.gaps(rows[ahead], search.logits(rows[ahead], at))
        ends[ahead] = at
        ahead = ahead[(gap > 0) | (slack < 0)]
    distance = torch.full_like(rays[:, 0], torch.inf)
    met = torch.ones_like(rows, dtype=torch.bool)
    met[ahead] = False
    ends[met], distance[met], _ = search.land(rows[met], ends[met])
    ends[torch.isinf(distance)] = torch.nan
    order = distance.view(total, -1).argsort(dim=1, stable=True)[:, :count]
    places = order + torch.arange(total, device=clean.device)[:, None] * len(ways)
    return [ends[place] for place in places.T]


_ROUNDS = 2
_BESIDE = 0.05
"""Share of the distance."""


@final
@dataclass(frozen=True, slots=True)
class Linearised(BoundaryFinder):
    """Near boundary points of heads that are any differentiable function of the features.

    Each step linearises the head, solves the flip problem of the linearisation exactly and comes
    back onto the boundary along the ray from the row; steps that get no nearer are shortened, or
    mind the linearisations on both sides of a kink. It starts from the row itself and from the
    nearest crossings on some rays, the same for every row. Of a linear head the answer is that of
    :class:`DualNewton`.

    Parameters
    ----------
    starts : int
        How many crossings on rays are followed, in each of two rounds.
    directions : int
        Rays that are looked along, half of them opposite to the other half.
    thirds : int
        At most so many third classes, the largest, enter a linearisation.
    seed : int
        Of the directions.
    """

    starts: int = 2
    directions: int = 32
    thirds: int = 8
    seed: int = 0

    def find(
        self,
        head: LinearHead | NonlinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose boundary points of `features` (B,d); `max_steps` linearisations an entry."""
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
        """Leave the best point of each problem in `search`; return the linearisations (P,)."""
        every = torch.arange(len(search.clean), device=search.clean.device)
        each = -(-max_steps // (1 + _ROUNDS * self.starts))
        spent = descend(search, every, search.clean, each, self.thirds)
        for turn in range(_ROUNDS):
            # the second time on the scale of what was found
            starts = ray_starts(search, self.starts, self.directions, self.seed + turn)
            for start in starts:
                away = torch.linalg.vector_norm(start - search.best, dim=1)
                # a start beside the best so far leads there again; NaN compares false
                rows = (away > _BESIDE * search.distance).nonzero()[:, 0]
                left = min(each, max_steps - int(spent.max()))
                spent[rows] += descend(search, rows, start[rows], left, self.thirds)
        return spent
