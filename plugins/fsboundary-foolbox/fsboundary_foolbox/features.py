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
"""Attacks require bounds: this many lengths of the row beyond 0, where the domain has none."""


def _units(rows: Tensor) -> Tensor:
    """Return the power of two (B,) above the RMS of the entries of each row, 1 for a row of zeros.

    It depends on the row only, so the answer for a row does not depend on the others.
    """
    largest = rows.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    # relative to the largest, whose square may overflow
    size = largest[:, 0] * (rows / largest).square().mean(dim=1).sqrt()
    return torch.where(size > 0, torch.ldexp(torch.ones_like(size), size.frexp().exponent), 1.0)


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
        units, proposed = _units(z), torch.empty_like(z)
        low, high = torch.empty_like(z), torch.empty_like(z)
        for unit in units.unique().tolist():
            rows = (units == unit).nonzero()[:, 0]
            reach = _ROOM * z.shape[1] ** 0.5 * unit
            low[rows], high[rows] = lower.clamp(min=-reach), upper.clamp(max=reach)
            proposed[rows] = attacks.run_attack(
                self.attack,
                dict(self.overrides),
                head,
                z[rows],
                source[rows],
                targets.flatten()[rows],
                bounds=(float(low[rows].amin()), float(high[rows].amax())),
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
