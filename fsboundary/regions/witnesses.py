"""Facets of many class pairs at once: points found along segments, then moved, then certified."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from fsboundary.geometry.batching import MEMORY_BYTES, chunks
from fsboundary.geometry.linear_programs import Array
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.facets import FacetTester, class_points, heights
from fsboundary.geometry.upper_envelope import upper_envelope

MARGIN = 0.01
"""How far points are moved below other classes, as a share of the distance of the two points that
they lie between."""

ROUNDS, MOVES = 8, 8
"""Rounds of so many moves, as long as each finds a witness for more than :data:`WORTH` of the pairs
without one."""

WORTH = 0.02


@final
class FacetTable:
    """The best certified point of every pair: row ``number(i, j)`` of one array.

    The array holds all K (K-1) / 2 pairs; memory is used where a row was written.
    """

    def __init__(self, space: Arrangement) -> None:
        k = space.num_classes
        self.space = space
        self.radius = torch.full((k, k), -torch.inf, dtype=torch.float64)
        self._centre = np.empty((k * (k - 1) // 2, len(space.point)))

    def number(self, i: Tensor, j: Tensor) -> Tensor:
        """Return the rows of pairs with i < j: (0,1), (0,2), ..., (1,2), ..."""
        return i * (2 * self.space.num_classes - i - 1) // 2 + j - i - 1

    def add(self, i: Tensor, j: Tensor, radius: Tensor, z: Array) -> None:
        """Keep certified centres `z` (P,f) where they are the best so far; pairs differ."""
        i, j = torch.minimum(i, j), torch.maximum(i, j)
        better = radius > self.radius[i, j]
        i, j, radius = i[better], j[better], radius[better]
        self.radius[i, j] = self.radius[j, i] = radius
        self._centre[self.number(i, j).numpy()] = self.space.lift(z[better.numpy()])

    def take(self, pairs: Tensor) -> Tensor:
        """Return the centres (P,d) of `pairs` (P,2), ascending, and give the array up."""
        rows, centre = self.number(pairs[:, 0], pairs[:, 1]).numpy(), self._centre
        # in place: a second array of this size may not fit, and no row moves up
        for part in chunks(len(rows), max(1, MEMORY_BYTES // (8 * centre.shape[1]))):
            centre[part] = centre[rows[part]]
        self._centre = centre[:0]
        return torch.from_numpy(centre[: len(rows)])


def find_witnesses(space: Arrangement, centres: Array, table: FacetTable) -> None:
    """Add certified points of facets to `table`, for as many pairs as segments and moves give.

    Parameters
    ----------
    space : Arrangement
    centres : array (K, f)
        A point of each region, NaN where none is known.
    table : FacetTable
    """
    known = torch.from_numpy(np.flatnonzero(np.isfinite(centres).all(axis=1)))
    if len(known) < 2:
        return
    tester = FacetTester(space)
    points = torch.from_numpy(centres)
    search = _Search(tester, points, table)
    pairs = known[torch.combinations(torch.arange(len(known)))]
    search.follow(pairs)
    origin = tester.clip(points[known].mean(dim=0))
    heads = tester.weight, tester.bias, tester.lower, tester.upper, origin
    for height in heights(*heads):
        search.start_from(class_points(*heads, height))
        search.move(search.left(pairs))


@final
class _Search:
    """Looks for points on ties, from one point a class.

    Parameters
    ----------
    tester : FacetTester
    points : Tensor (K, f)
        NaN where there is none.
    table : FacetTable
    """

    def __init__(self, tester: FacetTester, points: Tensor, table: FacetTable) -> None:
        self.tester, self.table = tester, table
        # a handful of (P,K) and (P,f) arrays at a time
        self.rows = max(1, MEMORY_BYTES // (32 * max(points.shape)))
        self.start_from(points)

    def start_from(self, points: Tensor) -> None:
        """Use other points."""
        self.points = points
        self.logits = self.tester.logits(torch.nan_to_num(points))

    def left(self, pairs: Tensor) -> Tensor:
        """Return the pairs (P, 2) without a witness."""
        return pairs[~(self.table.radius[pairs[:, 0], pairs[:, 1]] > 0)]

    def follow(self, pairs: Tensor) -> None:
        """Test the crossings on the segments between the points of `pairs` (P, 2)."""
        for part in pairs.split(self.rows):
            i, j = part.unbind(dim=1)
            start = self.logits[i]
            classes, where = upper_envelope(start, self.logits[j] - start)
            row, place = torch.isfinite(where).nonzero(as_tuple=True)
            before, after = classes[row, place], classes[row, place + 1]
            first, second = torch.minimum(before, after), torch.maximum(before, after)
            new = (~(self.table.radius[first, second] > 0)).nonzero()[:, 0]
            # one segment a pair
            number = self.table.number(first[new], second[new]).numpy()
            kept = new[torch.from_numpy(np.unique(number, return_index=True)[1])]
            row, t = row[kept], where[row[kept], place[kept]][:, None]
            z = (1 - t) * self.points[i[row]] + t * self.points[j[row]]
            self._test(z, first[kept], second[kept])

    def move(self, pairs: Tensor) -> None:
        """Move points of the ties of `pairs` (P, 2) below the other classes."""
        for part in pairs.split(self.rows):
            i, j = part.unbind(dim=1)
            start, end = self.points[i], self.points[j]
            margin = MARGIN * lengths(end - start)
            t = self._tied_at(i, j)[:, None]
            z = self.tester.onto_tie((1 - t) * start + t * end, i, j)
            for _ in range(ROUNDS):
                before = len(z)
                for _ in range(MOVES):
                    moved, done = self.tester.improved(z, i, j, margin)
                    self._test(z[done], i[done], j[done])
                    z, i, j, margin = moved[~done], i[~done], j[~done], margin[~done]
                if before - len(z) <= WORTH * before:
                    break

    def _tied_at(self, i: Tensor, j: Tensor) -> Tensor:
        """Return where on the segment between the points of `i` and `j` the two tie, (P,)."""
        lead = self.logits[i, i] - self.logits[i, j]
        lag = self.logits[j, j] - self.logits[j, i]
        return (lead / (lead + lag)).nan_to_num(nan=0.5).clamp(0.0, 1.0)

    def _test(self, z: Tensor, i: Tensor, j: Tensor) -> None:
        """Certify points (P,f) of pairs that differ, and keep them."""
        z = self.tester.onto_tie(z, i, j)
        self.table.add(i, j, self.tester.radii(z, i, j), z.numpy())
