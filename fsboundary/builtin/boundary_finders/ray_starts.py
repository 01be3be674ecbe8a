"""Places to start from: where rays in random directions first meet the boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.linearised_state import TieSearch

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
