"""Witnesses of facets for many class pairs at once: points on ties, found, moved and certified."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from fsboundary.geometry.batching import MEMORY_BYTES, chunks
from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.facets import FacetTester, seed_heights, seed_points
from fsboundary.geometry.upper_envelope import upper_envelope

LEAD = 0.01
"""Distance by which other classes are to be lower at a moved point, as a fraction of the distance
between the two points of its segment."""

ROUNDS, MOVES = 8, 8
"""Maximum number of rounds, and moves per round; a round must find a witness for more than the
fraction :data:`MIN_GAIN` of the pairs without one, or it is the last."""

MIN_GAIN = 0.02


@final
class FacetTable:
    """The best certified point of every pair: row ``number(i, j)`` of one array.

    The array has a row for all K (K-1) / 2 pairs; memory is used only for rows that are written.
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
        """Record certified centres `z` (P,f) that are the best so far; pairs must differ."""
        i, j = torch.minimum(i, j), torch.maximum(i, j)
        better = radius > self.radius[i, j]
        i, j, radius = i[better], j[better], radius[better]
        self.radius[i, j] = self.radius[j, i] = radius
        self._centre[self.number(i, j).numpy()] = self.space.lift(z[better.numpy()])

    def take(self, pairs: Tensor) -> Tensor:
        """Return the centres (P,d) of `pairs` (P,2), ascending, and release the array."""
        rows, centre = self.number(pairs[:, 0], pairs[:, 1]).numpy(), self._centre
        # in place: a second array of this size may not fit, and no row moves up
        for part in chunks(len(rows), max(1, MEMORY_BYTES // (8 * centre.shape[1]))):
            centre[part] = centre[rows[part]]
        self._centre = centre[:0]
        return torch.from_numpy(centre[: len(rows)])


def find_witnesses(space: Arrangement, centres: Array, table: FacetTable) -> None:
    """Add certified points of facets to `table`, for as many pairs as the search finds.

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
    search.test_crossings(pairs)
    origin = tester.clip(points[known].mean(dim=0))
    heads = tester.weight, tester.bias, tester.lower, tester.upper, origin
    for height in seed_heights(*heads):
        search.start_from(seed_points(*heads, height))
        search.move_ties(search.unproved(pairs))


@final
class _Search:
    """Search for points on ties, starting from one point per class.

    Parameters
    ----------
    tester : FacetTester
    points : Tensor (K, f)
        Point of each class, NaN where there is none.
    table : FacetTable
    """

    def __init__(self, tester: FacetTester, points: Tensor, table: FacetTable) -> None:
        self.tester, self.table = tester, table
        # a few (P,K) and (P,f) arrays at a time
        self.rows = max(1, MEMORY_BYTES // (32 * max(points.shape)))
        self.start_from(points)

    def start_from(self, points: Tensor) -> None:
        """Start from other points (K,f)."""
        self.points = points
        self.logits = self.tester.logits(torch.nan_to_num(points))

    def unproved(self, pairs: Tensor) -> Tensor:
        """Return those of `pairs` (P, 2) that have no witness."""
        return pairs[~(self.table.radius[pairs[:, 0], pairs[:, 1]] > 0)]

    def test_crossings(self, pairs: Tensor) -> None:
        """Test the crossings on the segments between the points of `pairs` (P, 2)."""
        for part in pairs.split(self.rows):
            i, j = part.unbind(dim=1)
            start = self.logits[i]
            classes, crossings = upper_envelope(start, self.logits[j] - start)
            row, column = torch.isfinite(crossings).nonzero(as_tuple=True)
            before, after = classes[row, column], classes[row, column + 1]
            first, second = torch.minimum(before, after), torch.maximum(before, after)
            new = (~(self.table.radius[first, second] > 0)).nonzero()[:, 0]
            # one segment per pair
            number = self.table.number(first[new], second[new]).numpy()
            chosen = new[torch.from_numpy(np.unique(number, return_index=True)[1])]
            row, t = row[chosen], crossings[row[chosen], column[chosen]][:, None]
            z = (1 - t) * self.points[i[row]] + t * self.points[j[row]]
            self._certify(z, first[chosen], second[chosen])

    def move_ties(self, pairs: Tensor) -> None:
        """Move points on the ties of `pairs` (P, 2) to where the other classes are lower."""
        for part in pairs.split(self.rows):
            i, j = part.unbind(dim=1)
            start, end = self.points[i], self.points[j]
            lead = LEAD * lengths(end - start)
            t = self._tie_positions(i, j)[:, None]
            z = self.tester.project_on_tie((1 - t) * start + t * end, i, j)
            for _ in range(ROUNDS):
                before = len(z)
                for _ in range(MOVES):
                    moved, done = self.tester.improve(z, i, j, lead)
                    self._certify(z[done], i[done], j[done])
                    z, i, j, lead = moved[~done], i[~done], j[~done], lead[~done]
                if before - len(z) <= MIN_GAIN * before:
                    break

    def _tie_positions(self, i: Tensor, j: Tensor) -> Tensor:
        """Return t (P,) of the tie on the segment between the points of `i` and `j`."""
        ahead = self.logits[i, i] - self.logits[i, j]
        behind = self.logits[j, j] - self.logits[j, i]
        return (ahead / (ahead + behind)).nan_to_num(nan=0.5).clamp(0.0, 1.0)

    def _certify(self, z: Tensor, i: Tensor, j: Tensor) -> None:
        """Certify points (P,f) of pairs that differ, and add them to the table."""
        z = self.tester.project_on_tie(z, i, j)
        self.table.add(i, j, self.tester.radii(z, i, j), z.numpy())
