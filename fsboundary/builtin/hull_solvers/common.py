"""When a hull solver may stop, seen from how the core grades.

What hull solvers share that hold all points and answer one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.min_norm_point import Array
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.plugins.interfaces import unsolved_hulls

SAFETY = 0.5
"""Rows stop at this share of the tolerance, so that grading, which subtracts its own rounding,
does not fail for want of a digit."""

ON_HULL = 1e-10
"""Residuals below this share of the scale are inside: a tenth of what grading calls inside."""


def all_points(points: PointSet, most: int) -> Array:
    """Return all generators (n,d) in float64.

    Raises
    ------
    ArgumentError
        They are more than `most` numbers; told before any is read.
    """
    n, d = len(points), points.num_features
    if n * d > most:
        raise ArgumentError(
            "bank",
            f"{n} points of width {d}, {n * d:.3g} numbers",
            f"at most {most:.3g} numbers, as this solver holds all points in memory",
            'use solver="active_set" or "away_steps", or pass an instance with a larger `most`',
        )
    return points.take(torch.arange(n)).to(torch.float64).cpu().numpy()


def row_by_row(
    queries: Tensor,
    exclude: Tensor | None,
    count: int,
    solve: Callable[[Array, NDArray[np.intp] | None], tuple[Array, int]],
) -> HullProjection:
    """Return the answers of `solve` to one query after another.

    Parameters
    ----------
    queries : Tensor (B, d)
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    count : int
        n.
    solve : callable
        Takes a query (d,) and the generators that count, None for all; returns weights of these
        generators, all zero where it found none, and its steps.
    """
    found: list[tuple[NDArray[np.intp], Array, int]] = []
    for row, query in enumerate(queries.cpu().numpy()):
        kept = None
        if exclude is not None and bool((exclude[row] >= 0).any()):
            out = exclude[row][exclude[row] >= 0].cpu().numpy()
            kept = np.setdiff1d(np.arange(count), out)
        # solvers may crash on a hull without points: scipy's nnls aborts the process
        empty = kept is not None and len(kept) == 0
        weights, steps = (np.zeros(0), 0) if empty else solve(query, kept)
        used = np.flatnonzero(weights > 0)
        found.append((used if kept is None else kept[used], weights[used], steps))
    return packed(queries, found)


def packed(queries: Tensor, found: list[tuple[NDArray[np.intp], Array, int]]) -> HullProjection:
    """Return the generators, their weights and the steps of each of `queries` (B,d) as tables."""
    fields: dict[str, Any] = unsolved_hulls(queries)
    width = max((len(used) for used, _, _ in found), default=1)
    shape = len(found), max(width, 1)
    support, share = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    for row, (used, weights, steps) in enumerate(found):
        support[row, : len(used)], share[row, : len(used)] = used, weights
        fields["steps"][row] = steps
    fields["support"] = torch.from_numpy(support).to(queries.device)
    fields["weights"] = torch.from_numpy(share).to(queries.device)
    return HullProjection(**fields)
