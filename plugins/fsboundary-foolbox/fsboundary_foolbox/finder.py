"""Image finder that runs an attack, verifies its success and bisects to the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary_foolbox import attacks
from fsboundary_foolbox.bisection import bisect_to_boundary


@dataclass(frozen=True)
class Foolbox(attacks.AttackOptions, fsb.ImageBoundaryFinder):
    """Run one of Foolbox's minimisation attacks, then bisect the line to the clean image.

    Options are those of :class:`~fsboundary_foolbox.attacks.AttackOptions`.
    """

    def find(
        self,
        view: ModelView,
        images: Tensor,
        *,
        targets: Tensor | Literal["nearest"],
        bounds: tuple[float, float],
        norm: Literal["l2", "linf"],
        max_steps: int,
    ) -> FlipImages:
        """Propose an image on the boundary for each of `images` (B,C,H,W)."""
        with torch.no_grad():
            source = view.logits(images).argmax(dim=1)
        proposed = attacks.run_attack(
            self.attack,
            dict(self.overrides),
            view,
            images,
            source,
            targets,
            bounds=bounds,
            unit=bounds[1] - bounds[0],
            norm=norm,
            max_steps=max_steps,
        )
        with torch.no_grad():
            placed, passes = bisect_to_boundary(view, images, proposed, source, targets)
        rows = torch.full_like(source, 1)
        nothing = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
        return FlipImages(
            images=placed,
            distance=nothing,
            residual=nothing.clone(),
            source=source,
            target=targets if isinstance(targets, Tensor) else torch.full_like(source, -1),
            status=torch.full_like(source, int(fsb.Status.UNDECIDED)),
            # the core counts the passes itself
            num_backwards=torch.zeros_like(source),
            num_forwards=passes * rows,
        )
