"""A hull solver for few rows and wide hulls, also for pairs of hulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.builtin.solvers.stopping import SAFETY
from fsboundary.builtin.solvers.whole import all_points
from fsboundary.errors import ArgumentError
from fsboundary.geometry.differences import Differences
from fsboundary.geometry.interior_point import shortest_weights
from fsboundary.geometry.lent import Lent
from fsboundary.interfaces import HullSolver, unsolved_hulls
from fsboundary.protocols import PointSet
from fsboundary.results import HullProjection


@final
@dataclass(frozen=True, slots=True)
class InteriorPoint(HullSolver):
    """Solve each row on all points at once: 20 to 40 steps, whatever the support.

    A step costs a product of n by d by d numbers. Two hulls are n + m points for it, not n m
    differences, so it is the choice for :func:`fsboundary.hulls.hull_separation` in hundreds of
    dimensions; for many rows in one hull it is slow. Inside a hull all points carry weight.

    Parameters
    ----------
    most : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    most: int = 2**28

    def prepare(self, points: PointSet) -> tuple[tuple[int, ...], Tensor]:
        """Return the sizes of the hulls and all points (n,d), those of a second hull negative."""
        own = points.own if isinstance(points, Lent) else points
        sides = (own.one, own.other) if isinstance(own, Differences) else (own,)
        held = [torch.from_numpy(all_points(side, self.most)) for side in sides]
        rows = held[0]
        if len(held) > 1:
            # differences do not feel a shift of both, but rounding does
            middle = rows.mean(dim=0)
            rows = torch.cat([rows - middle, middle - held[1]])
        return tuple(len(part) for part in held), rows

    def project(
        self,
        state: tuple[tuple[int, ...], Tensor],
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        sizes, points = state
        if exclude is not None and len(sizes) > 1:
            raise ArgumentError("exclude", "differences", "None", "leave points of a hull out")
        fields: dict[str, Any] = unsolved_hulls(queries)
        support, weights = [], []
        for row, query in enumerate(queries.cpu()):
            count = torch.arange(len(points))
            if exclude is not None:
                count = count[~torch.isin(count, exclude[row].cpu())]
            used, share, steps = count[:0], points.new_zeros(0), 0
            if len(count):
                shifted = points[count]
                shifted[: sizes[0]] -= query
                own = sizes if len(sizes) > 1 else (len(count),)
                found, steps = shortest_weights(
                    shifted, own, tolerance=SAFETY * tolerance, max_steps=max_steps
                )
                used, share = _generators(found, sizes, count)
            fields["steps"][row] = steps
            support.append(used)
            weights.append(share)
        pad = torch.nn.utils.rnn.pad_sequence
        if support:
            fields["support"] = pad(support, batch_first=True, padding_value=-1)
            fields["weights"] = pad(weights, batch_first=True)
        for name in ("support", "weights"):
            fields[name] = fields[name].to(queries.device)
        return HullProjection(**fields)


def _generators(found: Tensor, sizes: tuple[int, ...], count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the generators (S,) that carry weight, differences where there are two hulls."""
    if len(sizes) == 1:
        used = (found > 0).nonzero()[:, 0]
        return count[used], found[used]
    # from the north-west corner: pairs whose weights add up to those of both sides
    ends = [part.cumsum(dim=0) for part in found.split(sizes)]
    ends = [end / end[-1] for end in ends]
    cuts = torch.cat(ends).unique()
    cuts = cuts[cuts > 0]
    share = torch.diff(cuts, prepend=cuts.new_zeros(1))
    middle = cuts - share / 2
    rows, columns = (torch.searchsorted(end, middle).clamp_max(len(end) - 1) for end in ends)
    return rows * sizes[1] + columns, share
