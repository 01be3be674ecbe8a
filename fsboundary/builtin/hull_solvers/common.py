"""Stopping tolerances of hull solvers, and helpers of those that solve one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.min_norm_point import Array
from fsboundary.core.checks import distinct_texts
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.rows import stack_ragged
from fsboundary.plugins.interfaces import unsolved_hulls

SAFETY_FACTOR = 0.5
"""Rows stop at this fraction of the tolerance, so that grading, which subtracts its own rounding,
does not fail in the last digit."""

INSIDE_FACTOR = 1e-10
"""Residuals below this fraction of the scale are inside: a tenth of the limit in grading."""


def all_points(points: PointSet, max_elements: int) -> Array:
    """Return all generators (n,d) in float64.

    Raises
    ------
    ArgumentError
        They are more than `max_elements` numbers; raised before any is read.
    """
    n, d = len(points), points.num_features
    if n * d > max_elements:
        count, limit = distinct_texts(n * d, max_elements, digits=3)
        raise ArgumentError(
            "bank",
            f"{n} points of width {d}, {count} numbers",
            f"at most {limit} numbers, as this solver holds all points in memory",
            'use solver="active_set" or "away_steps", or an instance with a larger `max_elements`',
        )
    return points.take(torch.arange(n)).to(torch.float64).cpu().numpy()


def solve_rows(
    queries: Tensor,
    exclude: Tensor | None,
    count: int,
    solve: Callable[[Array, NDArray[np.intp] | None], tuple[Array, int]],
) -> HullProjection:
    """Return the solutions of `solve` for one query after another.

    Parameters
    ----------
    queries : Tensor (B, d)
    exclude : Tensor (B, E), optional
        Generators excluded for a row, -1 as padding.
    count : int
        Number of generators, n.
    solve : callable
        Function of a query (d,) and the indices of the generators included, None for all; returns
        weights of these generators, all zero if it found none, and its steps.
    """
    solutions: list[tuple[NDArray[np.intp], Array, int]] = []
    for row, query in enumerate(queries.cpu().numpy()):
        included = None
        if exclude is not None and bool((exclude[row] >= 0).any()):
            excluded = exclude[row][exclude[row] >= 0].cpu().numpy()
            included = np.setdiff1d(np.arange(count), excluded)
        # solvers may crash on a hull without points: scipy's nnls aborts the process
        empty = included is not None and len(included) == 0
        weights, steps = (np.zeros(0), 0) if empty else solve(query, included)
        used = np.flatnonzero(weights > 0)
        solutions.append((used if included is None else included[used], weights[used], steps))
    return pack_supports(queries, solutions)


def pack_supports(
    queries: Tensor, solutions: list[tuple[NDArray[np.intp], Array, int]]
) -> HullProjection:
    """Return generators, weights and steps of each of `queries` (B,d) as padded tables."""
    fields: dict[str, Any] = unsolved_hulls(queries)
    if solutions:
        supports, weights, steps = zip(*solutions, strict=True)
        fields["support"] = _stack(supports, -1).to(queries.device)
        fields["weights"] = _stack(weights, 0).to(queries.device)
        fields["steps"] = torch.tensor(steps, device=queries.device)
    return HullProjection(**fields)


def _stack(arrays: Sequence[NDArray[Any]], padding: float) -> Tensor:
    return stack_ragged([torch.from_numpy(array) for array in arrays], padding, min_width=1)
