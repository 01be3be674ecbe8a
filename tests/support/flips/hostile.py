"""A boundary finder that lies: the grading must not believe a word of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fsboundary import FlipPoints, LinearHead
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import BoundaryFinder

LIES = ("scale", "noise", "random", "huge", "sparse", "points", "mixed up", "not finite")


@dataclass(frozen=True)
class Hostile(BoundaryFinder):
    """Spoil the default finder's answer in one of the ways of :data:`LIES`."""

    lie: str
    seed: int = 0

    def find(
        self,
        head: LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        honest = create("boundary_finder", "dual_newton")
        answer = honest.find(
            head, features, targets=targets, tolerance=tolerance, max_steps=max_steps
        )
        g = torch.Generator().manual_seed(self.seed)
        shape = (*targets.shape, head.num_classes)
        active = torch.arange(head.num_classes).expand(shape).clone()
        valid = answer.active >= 0
        lam = torch.zeros(shape, dtype=torch.float64)
        lam.scatter_add_(2, answer.active.clamp_min(0), answer.multipliers * valid)
        points = answer.points
        noise = torch.randn(shape, generator=g, dtype=torch.float64)
        exponent = 40 * torch.rand(targets.shape, generator=g, dtype=torch.float64)[..., None]
        if self.lie == "scale":
            lam = lam * 10 ** (exponent - 20)
        elif self.lie == "noise":
            lam = lam * (1 + noise * 10 ** (-exponent / 2))
        elif self.lie == "random":
            lam = noise * 10 ** (exponent - 20)
        elif self.lie == "huge":
            lam = noise * 10 ** (7 * exponent)
        elif self.lie == "sparse":
            lam = torch.where(noise > 1, noise, 0.0) * 10 ** (exponent - 20)
        elif self.lie == "points":
            step = torch.randn(points.shape, generator=g, dtype=torch.float64)
            size = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
            points = points + step * size * 10 ** (-exponent / 2)
        elif self.lie == "mixed up":
            order = torch.randperm(lam[..., 0].numel(), generator=g)
            lam = lam.flatten(0, 1)[order].view(shape)
            points = points.flatten(0, 1)[order].view(points.shape)
        else:
            odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e308], dtype=torch.float64)
            pick = torch.randint(0, 4, shape, generator=g)
            lam = torch.where(noise > 0.5, odd[pick], lam)
            active = active + (noise < -1.5).long() * torch.randint(-9, 9, shape, generator=g)
        return replace(answer, active=active, multipliers=lam, points=points)
