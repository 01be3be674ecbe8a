"""How many problems fit in one piece of work."""

from __future__ import annotations

from collections.abc import Iterator

CACHE_BYTES = 1 << 20
"""One work array of a chunk should stay near the size of a core's cache: batched passes over
arrays that leave the cache ran about twice as slowly on the machines measured."""

MEMORY_BYTES = 32 << 20
"""Cap on one work array where a single row is already larger than the cache."""


def chunk_rows(width: int, minimum: int = 64) -> int:
    """Return how many rows of `width` float64 numbers make a chunk.

    At least `minimum` rows (matrix products on fewer rows waste their fixed cost) unless they
    would pass :data:`MEMORY_BYTES`, and never less than one.
    """
    fit = CACHE_BYTES // (8 * max(width, 1))
    cap = MEMORY_BYTES // (8 * max(width, 1))
    return max(1, min(max(fit, minimum), cap))


def chunks(total: int, rows: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `rows` that cover ``range(total)``."""
    for start in range(0, total, rows):
        yield slice(start, min(start + rows, total))
