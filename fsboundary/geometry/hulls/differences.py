"""All differences of a point of one set and a point of another, as a point set of its own."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import Moments, PointSet
from fsboundary.geometry.hulls.certify import extent


@final
class Differences:
    """The points a - b: their hull is the Minkowski difference of the two hulls.

    Its distance from 0 is the distance between the hulls. Nothing is stored: a linear function is
    smallest at the difference of a smallest a and a largest b.

    Parameters
    ----------
    one, other : PointSet
        n and m points; point ``i * m + j`` is ``one[i] - other[j]``.
    """

    def __init__(self, one: PointSet, other: PointSet) -> None:
        self.one, self.other = one, other
        self.num_features = one.num_features

    def __len__(self) -> int:
        return len(self.one) * len(self.other)

    def split(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of `one` and `other` that make the differences at `indices`."""
        rows = indices.div(len(self.other), rounding_mode="floor")
        return rows, indices - rows * len(self.other)

    def take(self, indices: Tensor) -> Tensor:
        """Return the differences at `indices`, each number exact up to one rounding."""
        rows, columns = self.split(indices)
        return self.one.take(rows).to(torch.float64) - self.other.take(columns).to(torch.float64)

    def moments(self) -> Moments:
        """Return the sizes; `largest` is the sum of the largest norms.

        The norm of a difference may be much smaller, but products are formed from the two points
        apart, so their rounding follows the sizes of these.
        """
        a, b = extent(self.one), extent(self.other)
        squares = (a.scale.square() + b.scale.square()) * len(self)
        return Moments(len(self), a.mean - b.mean, squares, a.largest + b.largest)

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products (B,k) of each direction, and where they are.

        With E differences left out, the rest of the k + E smallest holds what is asked for. The
        sum of the r-th smallest of one side and the s-th of the other is no smaller than r s sums,
        so the k + E smallest are among those with r s <= k + E.
        """
        count = k if exclude is None else k + exclude.shape[1]
        low, rows = self.one.price(directions, min(count, len(self.one)))
        high, columns = self.other.price(-directions, min(count, len(self.other)))
        r, s = torch.arange(1, low.shape[1] + 1), torch.arange(1, high.shape[1] + 1)
        r, s = (r[:, None] * s <= count).nonzero(as_tuple=True)
        sums, pairs = low[:, r] + high[:, s], rows[:, r] * len(self.other) + columns[:, s]
        if exclude is not None:
            for row, out in enumerate(exclude):
                sums[row, torch.isin(pairs[row], out)] = torch.inf
        best, order = sums.sort(dim=1, stable=True)
        found = torch.where(best < torch.inf, pairs.gather(1, order), -1)
        lack = max(0, k - found.shape[1])
        pad = torch.nn.functional.pad
        return (
            pad(best[:, :k], (0, lack), value=torch.inf),
            pad(found[:, :k], (0, lack), value=-1),
        )
