"""Arithmetic on a few generators of a large point set, each read once.

A point set as a hull solver gets it: it can be asked, but is not kept alive.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.geometry.batching import chunk_rows, chunks


def gathered(points: PointSet, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the generators of `wanted` (-1 is padding), ascending, and where they lie (U,d)."""
    rows = wanted[wanted >= 0].unique()
    return rows, points.take(rows).to(torch.float64)


def products(directions: Tensor, rows: Tensor, at: Tensor, indices: Tensor) -> Tensor:
    """Return float64 products (B,C) of directions (B,d) with `indices` (B,C), +inf for -1.

    Every index is one of `rows` (U,), which lie at `at` (U,d).
    """
    values = torch.full(indices.shape, torch.inf, dtype=torch.float64, device=indices.device)
    if len(rows):
        for part, own in _pieces(rows, at, indices):
            values[part] = (own @ directions[part, :, None])[..., 0]
    return torch.where(indices >= 0, values, torch.inf)


def combined(points: PointSet, support: Tensor, weights: Tensor) -> Tensor:
    """Return the sums (B,d) of the generators `support` (B,S) with `weights` (B,S), float64."""
    rows, at = gathered(points, support)
    out = torch.zeros(len(support), points.num_features, dtype=torch.float64, device=weights.device)
    if len(rows):
        for part, own in _pieces(rows, at, support):
            out[part] = (weights[part, None] @ own)[:, 0]
    return out


def _pieces(rows: Tensor, at: Tensor, indices: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the batch and the generators (b,C,d) of each; any point for padding."""
    place = torch.searchsorted(rows, indices.clamp_min(0)).clamp_max(len(rows) - 1)
    for part in chunks(len(indices), chunk_rows(indices.shape[1] * at.shape[1])):
        yield part, at[place[part]]


@final
class Lent:
    """A weak view of a point set, and what passes over all its generators have shown.

    Solvers keep what they prepared for as long as the point set lives; a state that held the
    point set itself would keep it alive for ever.

    :func:`fsboundary.geometry.hulls.pricing.price_exact` writes down the best product of each direction
    that it prices over all generators, so that grading need not repeat the pass in which a solver
    saw that it was done. Only that function writes, from the point set itself, and by `largest`
    rather than by what the solver takes for the largest norm: what a solver claims is never taken
    down.

    Parameters
    ----------
    points : PointSet
    largest : Tensor (), float64
        The largest norm of a generator.
    """

    def __init__(self, points: PointSet, largest: Tensor) -> None:
        self._points = weakref.ref(points)
        self.largest = largest
        self._best: dict[bytes, float] = {}

    @property
    def own(self) -> PointSet:
        """The point set.

        Raises
        ------
        ReferenceError
            It is gone.
        """
        points = self._points()
        if points is None:
            raise ReferenceError("the point set was deleted; keep it while its solver runs")
        return points

    @property
    def num_features(self) -> int:
        """d."""
        return self.own.num_features

    def __len__(self) -> int:
        return len(self.own)

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products of each direction, and their generators."""
        return self.own.price(directions, k, exclude)

    def take(self, indices: Tensor) -> Tensor:
        """Return the generators at `indices`."""
        return self.own.take(indices)

    def write_down(self, directions: Tensor, exclude: Tensor | None, best: Tensor) -> None:
        """Keep the smallest product (B,) of each of `directions` (B,d)."""
        self._best.update(zip(_keys(directions, exclude), best.tolist(), strict=True))

    def look_up(self, directions: Tensor, exclude: Tensor | None) -> Tensor:
        """Return the smallest product (B,), float64, of each direction; NaN where not known."""
        known = [self._best.get(key, torch.nan) for key in _keys(directions, exclude)]
        return torch.tensor(known, dtype=torch.float64, device=directions.device)

    def forget(self) -> None:
        """Drop what was written down."""
        self._best.clear()


def _keys(directions: Tensor, exclude: Tensor | None) -> list[bytes]:
    """Return 128 bits of each direction and of the generators that do not count for it."""
    rows = directions.to(torch.float64).cpu().contiguous().numpy()
    left_out = None if exclude is None else exclude.sort(dim=1)[0].cpu().contiguous().numpy()
    keys = []
    for row in range(len(rows)):
        digest = hashlib.blake2b(rows[row].tobytes(), digest_size=16)
        if left_out is not None:
            digest.update(left_out[row][left_out[row] >= 0].tobytes())
        keys.append(digest.digest())
    return keys
