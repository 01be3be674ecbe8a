"""Hulls whose nearest points are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullProblem:
    """Generators (n,d), queries (B,d) and the queries' distances (B,) to the hull."""

    name: str
    points: Tensor
    queries: Tensor
    distance: Tensor


def cloud(rows: int, width: int, seed: int) -> Tensor:
    """Return normal float64 numbers (rows, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def simplex_nearest(queries: Tensor) -> Tensor:
    """Return the nearest points with coordinates >= 0 that sum to 1: cut at a common level."""
    ordered = queries.sort(dim=1, descending=True).values
    levels = (ordered.cumsum(dim=1) - 1) / torch.arange(1, queries.shape[1] + 1)
    last = (ordered > levels).sum(dim=1, keepdim=True) - 1
    return (queries - levels.gather(1, last)).clamp_min(0.0)


def known_hulls() -> list[HullProblem]:
    """Return a cube, a simplex, a segment, and one point, each with several queries."""
    queries = 2 * cloud(6, 3, 0)
    cube = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    wide = 1.5 * cloud(6, 6, 1)
    ends, around = cloud(2, 5, 2), 2 * cloud(6, 5, 3)
    along = ends[1] - ends[0]
    share = ((around - ends[0]) @ along / along.square().sum()).clamp(0, 1)[:, None]
    one = cloud(1, 4, 4)
    found = {
        "a cube": (cube, queries, queries.clamp(-1, 1)),
        "a simplex": (torch.eye(6, dtype=torch.float64), wide, simplex_nearest(wide)),
        "a segment": (ends, around, ends[0] + share * along),
        "one point": (one, cloud(3, 4, 5), one.expand(3, 4)),
        "a cube, every vertex twice": (cube.repeat(2, 1), queries, queries.clamp(-1, 1)),
    }
    return [
        HullProblem(name=name, points=v, queries=q, distance=torch.linalg.vector_norm(q - p, dim=1))
        for name, (v, q, p) in found.items()
    ]
