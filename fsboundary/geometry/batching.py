"""Batches of rows and generators that fit in the cache or in a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.threads import map_in_threads

_R = TypeVar("_R")

CACHE_BYTES = 1 << 20
"""One work array of a chunk should stay near the size of a core's cache: batched passes over
arrays that leave the cache ran about twice as slowly on the machines measured."""

MEMORY_BYTES = 32 << 20
"""Cap on one work array where a single row is already larger than the cache."""

_SMALL = 2048
"""Numbers in the largest array of a call that torch would not split either; a thread costs more."""


def chunk_rows(width: int, minimum: int = 64) -> int:
    """Return how many rows of `width` float64 numbers make a chunk.

    At least `minimum` rows (matrix products on fewer rows waste their fixed cost) unless they
    would exceed :data:`MEMORY_BYTES`, and never less than one.
    """
    fit = CACHE_BYTES // (8 * max(width, 1))
    cap = MEMORY_BYTES // (8 * max(width, 1))
    return max(1, min(max(fit, minimum), cap))


def chunks(total: int, rows: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `rows` that cover ``range(total)``."""
    for start in range(0, total, rows):
        yield slice(start, min(start + rows, total))


def map_chunks(
    work: Callable[[slice], _R], total: int, width: int, device: torch.device
) -> list[_R]:
    """Return what `work` returns for the chunks of `total` rows of `width` numbers, in order.

    The chunks do not depend on the number of threads, so neither does the result.
    """
    parts = list(chunks(total, chunk_rows(width)))
    if total * width <= _SMALL:
        return [work(part) for part in parts]
    return map_in_threads(device, work, parts)


def unsqueeze_like(values: Shaped[Tensor, " B"], like: Shaped[Tensor, "B ..."]) -> Tensor:
    """Return `values` (B,) shaped to broadcast over the rows of `like` (B,...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def stream_generators(points: PointSet) -> Iterator[Float64[Tensor, "c d"]]:
    """Yield the generators in order, (c,d) float64 each, one chunk in memory at a time."""
    for part in chunks(len(points), chunk_rows(points.num_features, 4096)):
        yield points.take(torch.arange(part.start, part.stop)).to(torch.float64)
