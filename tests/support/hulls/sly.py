"""A hull solver whose passes over the generators must not be reused by grading."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.core.protocols import PointSet
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls
from support.hulls.oracles import cloud


@dataclass(frozen=True)
class Sly(HullSolver):
    """Return one generator, after a pass that excludes the others or uses a perturbed direction.

    Every pass is made with a largest norm of 0.
    """

    leave_out_others: bool = False
    perturbation: float = 0.0

    def prepare(self, points: PointSet) -> PointSet:
        return points

    def project(
        self,
        state: PointSet,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> fsb.HullProjection:
        fields = unsolved_hulls(queries)
        fields["support"] = torch.zeros((len(queries), 1), dtype=torch.int64)
        fields["weights"] = torch.ones((len(queries), 1), dtype=torch.float64)
        away = queries - state.take(fields["support"][:, 0])
        size = torch.linalg.vector_norm(away, dim=1, keepdim=True)
        fields["normal"] = away + self.perturbation * size * cloud(len(away), away.shape[1], 5)
        rest = torch.arange(1, len(state)).expand(len(queries), -1)
        skip = rest if self.leave_out_others else exclude
        price_exact(state, -fields["normal"], torch.tensor(0.0).double(), skip)
        return fsb.HullProjection(**fields)
