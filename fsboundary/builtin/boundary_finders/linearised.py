"""Places to start from: where rays in random directions first meet the boundary.

Boundary points of non-linear heads, by successive linearisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.boundary_finders.linearised_descent import descend
from fsboundary.builtin.boundary_finders.linearised_state import TieSearch
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.geometry.batching import MEMORY_BYTES, chunks
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips

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
