"""One bank with its queries as plain arrays, and their projections by fsboundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fsboundary as fsb
from fsboundary.plugins.interfaces import HullSolver
from support.flips.case import Array, arrays


@dataclass(frozen=True, kw_only=True)
class HullCase:
    """Raw inputs: everything that the checker knows about a problem.

    Attributes
    ----------
    points : array (n, d), float32 or float64
    queries : array (B, d)
    labels : array (n,), optional
        Classes of the points.
    wanted : array (B,), optional
        Class whose hull each query is projected on.
    leave_out : array (B,), optional
        Point that does not count for a query, together with its exact copies; -1 for none.
    """

    points: Array
    queries: Array
    labels: Array | None = None
    wanted: Array | None = None
    leave_out: Array | None = None
    tolerance: float = 1e-6

    def same_class(self, row: int) -> Array:
        """Return which points (n,) are of the wanted class of query `row`."""
        if self.labels is None or self.wanted is None:
            return np.ones(len(self.points), dtype=bool)
        return np.asarray(self.labels == self.wanted[row])

    def counts(self, row: int) -> Array:
        """Return which points (n,) are generators for query `row`."""
        counted = self.same_class(row)
        if self.leave_out is None or self.leave_out[row] < 0:
            return counted
        return counted & ~(self.points == self.points[self.leave_out[row]]).all(axis=1)

    def project(self, solver: str | HullSolver = "active_set", **options: Any) -> dict[str, Array]:
        """Return fsboundary's projections as arrays."""
        bank = fsb.FeatureBank(
            torch.tensor(self.points), None if self.labels is None else torch.tensor(self.labels)
        )
        result = fsb.hull_projection(
            bank,
            torch.tensor(self.queries),
            labels=None if self.wanted is None else torch.tensor(self.wanted),
            leave_out=None if self.leave_out is None else torch.tensor(self.leave_out),
            solver=solver,
            tolerance=self.tolerance,
            **options,
        )
        return arrays(result)
