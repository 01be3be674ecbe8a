"""Boundary finder that attacks the features, for heads that need not be linear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.core.heads import NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.plugins.interfaces import unsolved_flips
from fsboundary_foolbox import attacks
from fsboundary_foolbox.bisection import bisect_to_boundary

_ROOM = 10.0
"""Attacks require bounds: this many spreads beyond the features, where the domain has none."""


def _spread(features: Tensor) -> tuple[float, float]:
    """Return the RMS and the largest difference of entries of `features` (B,d) from their means.

    Those of the entries from 0 where all rows are equal; 1 where all are 0.
    """
    for about in (features - features.mean(dim=0), features):
        if (largest := float(about.abs().max())) > 0:
            # relative to the largest, whose square may overflow
            return largest * float((about / largest).square().mean().sqrt()), largest
    return 1.0, 1.0


@dataclass(frozen=True)
class FoolboxFeatures(attacks.AttackOptions, fsb.BoundaryFinder):
    """Run a minimisation attack on the features, then bisect the line to the row.

    Options are those of :class:`~fsboundary_foolbox.attacks.AttackOptions`.
    """

    def find(
        self,
        head: fsb.LinearHead | NonlinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose a boundary point of `features` (B,d) for each of `targets` (B,T)."""
        fields = unsolved_flips(features, head.predict(features), targets)
        if targets.numel() == 0:
            return FlipPoints(**fields)
        z = features.repeat_interleave(targets.shape[1], dim=0)
        source = fields["source"].repeat_interleave(targets.shape[1])
        lower, upper = head.domain.limits(features)
        unit, largest = _spread(features)
        room = _ROOM * largest
        low = torch.maximum(lower, (features.amin() - room).expand_as(lower))
        high = torch.minimum(upper, (features.amax() + room).expand_as(upper))
        proposed = attacks.run_attack(
            self.attack,
            dict(self.overrides),
            head,
            z,
            source,
            targets.flatten(),
            bounds=(float(low.amin()), float(high.amax())),
            unit=unit,
            norm="l2",
            max_steps=max_steps,
        )
        with torch.no_grad():
            points, _ = bisect_to_boundary(
                head, z, proposed.clamp(low, high), source, targets.flatten()
            )
        fields["points"] = points.view_as(fields["points"])
        fields["steps"] = torch.full_like(targets, max_steps)
        return FlipPoints(**fields)
