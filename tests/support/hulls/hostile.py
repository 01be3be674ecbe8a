"""A hull solver with false results, which grading must reject."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fsboundary import HullProjection
from fsboundary.core.protocols import PointSet
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver

LIES = (
    "noise",
    "random",
    "negative",
    "tiny",
    "huge",
    "not finite",
    "excluded",
    "out of range",
    "repeated",
    "mixed up",
    "words",
)


@dataclass(frozen=True)
class HostileHull(HullSolver):
    """The default solver with its result falsified in one of the ways of :data:`LIES`."""

    lie: str
    seed: int = 0

    def prepare(self, points: PointSet) -> Any:
        honest = create("hull_solver", "active_set")
        return honest, honest.prepare(points), len(points)

    def project(
        self,
        state: Any,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        honest, prepared, count = state
        answer = honest.project(
            prepared, queries, exclude=exclude, tolerance=tolerance, max_steps=max_steps
        )
        g = torch.Generator().manual_seed(self.seed)
        support, weights = answer.support, answer.weights
        noise = torch.randn(weights.shape, generator=g, dtype=torch.float64)
        power = 10 ** (-15 * torch.rand(len(queries), 1, generator=g, dtype=torch.float64))
        arbitrary = torch.randint(0, count, support.shape, generator=g)
        if self.lie == "noise":
            weights = weights * (1 + noise * power)
        elif self.lie == "random":
            support, weights = arbitrary, noise.abs()
        elif self.lie == "negative":
            weights = weights + noise
        elif self.lie == "tiny":
            # all weights subnormal: their sum has few digits, or none
            weights = weights * 10 ** (-307 - 17 * power ** (1 / 15))
        elif self.lie == "huge":
            weights = weights * 1e308 + 1e307 * noise.abs()
        elif self.lie == "not finite":
            odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e308], dtype=torch.float64)
            pick = torch.randint(0, 4, weights.shape, generator=g)
            weights = torch.where(noise > 0.5, odd[pick], weights)
        elif self.lie == "excluded":
            # the query's own copy, which must be left out, carries all the weight
            support_out = support[:, :1] if exclude is None else exclude
            support, weights = support_out, torch.ones(support_out.shape).double()
        elif self.lie == "out of range":
            support = support + (noise > 0.5).long() * torch.randint(
                -2 * count, 2 * count, support.shape, generator=g
            )
        elif self.lie == "repeated":
            support = torch.cat([support, support, arbitrary], dim=1)
            weights = torch.cat([weights, weights * 0.5, noise.abs() * power], dim=1)
        elif self.lie == "mixed up":
            order = torch.randperm(len(queries), generator=g)
            support, weights = support[order], weights[order]
        else:  # support and weights are correct; all other claims are false
            zero = torch.zeros_like(answer.distance)
            return replace(
                answer,
                points=queries.clone(),
                distance=zero,
                lower_bound=zero + 1e300,
                gap=zero,
                normal=torch.ones_like(queries),
                offset=zero - 1e300,
                membership=torch.ones_like(answer.membership),
                status=torch.zeros_like(answer.status),
            )
        return replace(answer, support=support, weights=weights)
