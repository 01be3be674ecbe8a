"""Closed-form flip points: the textbook distance to a hyperplane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips


@final
@dataclass(frozen=True, slots=True)
class ClosedForm(BoundaryFinder):
    """Step along the pairwise normal to the tie, ignoring other classes and the domain.

    Exact for the nearest class on an unbounded domain; elsewhere the core rejects the points
    that another class or the domain rules out and keeps the bound ``|l_i - l_j| / |w_i - w_j|``.
    """

    def find(
        self,
        head: LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose one step for each of `targets` (B,T)."""
        source, weight, bias = head.predict(features), head.weight, head.bias
        fields = unsolved_flips(features, source, targets)
        for column in range(targets.shape[1]):
            j = targets[:, column]
            normal = weight[source] - weight[j]
            margin = torch.linalg.vecdot(normal, features) + bias[source] - bias[j]
            squared = torch.linalg.vecdot(normal, normal)
            # equal weights: any multiplier keeps the point; -1 is the direction that proves
            # that different biases can never tie
            factor = torch.where(squared > 0, -margin / squared, -1.0)
            fields["points"][:, column] = features + factor[:, None] * normal
            fields["multipliers"][:, column, 0] = factor
        fields["active"] = targets[..., None].clone()
        fields["steps"] = torch.ones_like(targets)
        return FlipPoints(**fields)
