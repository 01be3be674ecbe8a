"""Generators in demand, shared by all rows of a hull solver."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.geometry.certify_hulls import extent
from fsboundary.protocols import PointSet


@final
class Pool:
    """A few generators of a point set, by ascending index, with their coordinates at hand.

    Attributes
    ----------
    points : PointSet
    size : Extent
    index : Tensor (m,)
    values : Tensor (m, d), float64
    """

    def __init__(self, points: PointSet) -> None:
        self.points, self.size = points, extent(points)
        self.reset(torch.zeros(0, dtype=torch.int64, device=self.size.mean.device))

    def reset(self, wanted: Tensor) -> None:
        """Hold exactly the generators of `wanted` (any number, repeated or not)."""
        self.index = wanted.unique()
        self.values = self.points.take(self.index).to(torch.float64)
        self.narrow = self.values.to(torch.float32)

    def add(self, wanted: Tensor) -> None:
        """Hold the generators of `wanted` too; -1 is padding."""
        fresh = torch.cat([self.index, wanted[wanted >= 0].reshape(-1)]).unique()
        if len(fresh) > len(self.index):
            self.reset(fresh)

    def place(self, generators: Tensor) -> Tensor:
        """Return where `generators`, which the pool holds, stand in it; 0 for -1."""
        return torch.searchsorted(self.index, generators.clamp_min(0)).clamp_max(
            len(self.index) - 1
        )

    def best(
        self,
        directions: Tensor,
        count: int,
        exclude: Tensor | None,
        near: Tensor | None = None,
        keep: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest products (B,C), float32 accuracy, and their generators.

        Parameters
        ----------
        directions : Tensor (B, d)
        count : int
        exclude : Tensor (B, E), optional
            Generators that do not count in a row, -1 as padding.
        near : Tensor (N,), optional
            Ascending generators to look at, all in the pool; the whole pool if None.
        keep : int
            How many generators to return for the next call with directions like these.

        Returns
        -------
        values, generators : Tensor (B, C)
        near : Tensor (N,)
            Those that came closest to the best of some row, if `near` was None.
        """
        index = self.index if near is None else near
        narrow = self.narrow if near is None else self.narrow[self.place(near)]
        scores = directions.to(torch.float32) @ narrow.T
        if exclude is not None:
            place = torch.searchsorted(index, exclude.clamp_min(0)).clamp_max(len(index) - 1)
            row, column = ((index[place] == exclude) & (exclude >= 0)).nonzero(as_tuple=True)
            scores[row, place[row, column]] = -torch.inf
        values, place = scores.topk(min(count, scores.shape[1]), dim=1)
        found = torch.where(torch.isinf(values), -1, index[place])
        if near is None:
            size = torch.linalg.vector_norm(directions, dim=1, keepdim=True).to(scores)
            closest = ((scores - values[:, :1]) / size).amax(dim=0)
            near = index[closest.topk(min(keep, len(closest))).indices.sort().values]
        return values.to(torch.float64), found, near
