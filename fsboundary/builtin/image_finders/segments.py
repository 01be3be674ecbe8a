"""Searches without gradients: along segments, and in random directions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.search_state import SearchState


def scan(search: SearchState, rows: Tensor, ends: Tensor, points: int) -> None:
    """Go from the clean images to `ends` (R,n) by `points` equal steps, until across."""
    for step in range(1, points + 1):
        if len(rows) == 0:
            return
        x = search.clean[rows] + step / points * (ends - search.clean[rows])
        gap, slack = search.evaluate(rows, x)
        going = (gap > 0) | (slack < 0)
        rows, ends = rows[going], ends[going]


def segment_ends(search: SearchState, rows: Tensor) -> Iterator[Tensor]:
    """Yield ends (R,n) that need no other image: the negative, all low, all high."""
    clean, (low, high) = search.clean[rows], search.box
    yield low + high - clean
    yield torch.full_like(clean, low)
    yield torch.full_like(clean, high)


def random_probe(search: SearchState, rows: Tensor, directions: int, seed: int = 0) -> None:
    """Evaluate random directions, a little nearer than the best so far, the same for every row.

    In a few dimensions this finds other, nearer parts of a boundary; in many it finds nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(directions):
        direction = _random_direction(search, generator)
        x = search.clean[rows] + 0.97 * search.distance[rows, None] * direction
        search.evaluate(rows, x.clamp(*search.box))


def perturb_best(
    search: SearchState, rows: Tensor, directions: int, rounds: int, seed: int = 0
) -> None:
    """Evaluate random directions around the best so far, the same for every row.

    In a few dimensions this escapes from corners of a boundary where successive linearisations,
    each of one side of a kink, lead back and forth.
    """
    generator = torch.Generator().manual_seed(seed)
    radius = 0.1 * search.distance[rows]
    for _ in range(rounds):
        before = search.distance[rows]
        for _ in range(directions):
            direction = _random_direction(search, generator)
            x = (search.best[rows] + radius[:, None] * direction).clamp(*search.box)
            search.evaluate(rows, x)
        radius = torch.where(search.distance[rows] < before, radius, radius / 2)


def _random_direction(search: SearchState, generator: torch.Generator) -> Tensor:
    """Return a random direction (1,n) of length 1."""
    shape = 1, search.clean.shape[1]
    direction = torch.randn(shape, generator=generator, dtype=torch.float32).to(search.clean)
    return direction / search.length(direction)[:, None]
