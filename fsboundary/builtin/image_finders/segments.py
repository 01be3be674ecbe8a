"""Along straight segments from the clean image to other images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.search_state import ImageSearch


def scan(search: ImageSearch, rows: Tensor, ends: Tensor, points: int) -> None:
    """Go from the clean images to `ends` (R,n) by `points` equal steps, until across."""
    for step in range(1, points + 1):
        if len(rows) == 0:
            return
        x = search.clean[rows] + step / points * (ends - search.clean[rows])
        gap, slack = search.gaps(rows, search.logits(rows, x))
        search.keep(rows, x, gap, slack)
        going = (gap > 0) | (slack < 0)
        rows, ends = rows[going], ends[going]


def probes(search: ImageSearch, rows: Tensor) -> Iterator[Tensor]:
    """Yield ends (R,n) that need no other image: the negative, all low, all high."""
    clean, (low, high) = search.clean[rows], search.box
    yield low + high - clean
    yield torch.full_like(clean, low)
    yield torch.full_like(clean, high)


def ring(search: ImageSearch, rows: Tensor, directions: int, seed: int = 0) -> None:
    """Look in random directions, a little nearer than the best so far, the same for every row.

    In a few dimensions this finds other, nearer parts of a boundary; in many it finds nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(directions):
        way = torch.randn(1, search.clean.shape[1], generator=generator).to(search.clean)
        way = way / search.length(way)[:, None]
        x = search.clean[rows] + 0.97 * search.distance[rows, None] * way
        x = x.clamp(*search.box)
        gap, slack = search.gaps(rows, search.logits(rows, x))
        search.keep(rows, x, gap, slack)


def stir(search: ImageSearch, rows: Tensor, directions: int, rounds: int, seed: int = 0) -> None:
    """Look around the best so far in random directions, the same for every row.

    In a few dimensions this leaves corners of a boundary where successive linearisations, each of
    one side of a kink, lead to and fro.
    """
    generator = torch.Generator().manual_seed(seed)
    radius = 0.1 * search.distance[rows]
    for _ in range(rounds):
        before = search.distance[rows]
        for _ in range(directions):
            way = torch.randn(1, search.clean.shape[1], generator=generator).to(search.clean)
            way = way / search.length(way)[:, None]
            x = (search.best[rows] + radius[:, None] * way).clamp(*search.box)
            gap, slack = search.gaps(rows, search.logits(rows, x))
            search.keep(rows, x, gap, slack)
        radius = torch.where(search.distance[rows] < before, radius, radius / 2)
