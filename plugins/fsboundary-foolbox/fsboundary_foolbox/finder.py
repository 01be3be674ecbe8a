"""The finder: an attack, its success checked again, its image brought onto the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.protocols import ModelView
from fsboundary.results import FlipImages
from fsboundary_foolbox import attacks

_HALVINGS = 40
"""Of the line from the clean image to the attack's: more than float32 images can tell apart."""


@dataclass(frozen=True)
class Foolbox(fsb.ImageBoundaryFinder):
    """Ask one of Foolbox's minimisation attacks, then halve the line to the clean image.

    Parameters
    ----------
    attack : str
        A class of ``foolbox.attacks``; empty for the fast minimum-norm attack in the norm asked.
    overrides : tuple of (str, value)
        Further arguments of that class.
    """

    attack: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse an attack that Foolbox does not have, or that does not minimise."""
        attacks.check(self.attack)

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
        found = attacks.run(
            self.attack,
            dict(self.overrides),
            view,
            images,
            source,
            targets,
            bounds=bounds,
            norm=norm,
            max_steps=max_steps,
        )
        with torch.no_grad():
            placed, passes = _onto_boundary(view, images, found, source, targets)
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
            evaluations=torch.zeros_like(source),
            forwards=passes * rows,
        )


def _onto_boundary(
    view: ModelView,
    images: Tensor,
    found: Tensor,
    source: Tensor,
    targets: Tensor | Literal["nearest"],
) -> tuple[Tensor, int]:
    """Return the images nearest to a tie on the lines from `images` to `found`, and passes.

    NaN where `found` is not of another class, or not of its target: an attack's own word that it
    succeeded is not taken.
    """

    def lead(x: Tensor) -> Tensor:
        """Return by how much the source is ahead (B,): of its target, or of every other class."""
        logits = view.logits(x)
        own = logits.gather(1, source[:, None])
        if isinstance(targets, Tensor):
            other = logits.gather(1, targets[:, None])
        else:
            other = logits.scatter(1, source[:, None], -torch.inf).amax(dim=1, keepdim=True)
        return (own - other)[:, 0]

    finite = torch.isfinite(found).flatten(1).all(dim=1)[:, None, None, None]
    far = torch.where(finite, found, images)
    across = lead(far) <= 0
    low, high = torch.zeros(len(images), device=images.device), torch.ones_like(across).to(images)
    low = low.to(images)
    best, smallest = far.clone(), lead(far).abs()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        x = images + middle[:, None, None, None] * (far - images)
        ahead = lead(x)
        nearer = ahead.abs() < smallest
        best = torch.where(nearer[:, None, None, None], x, best)
        smallest = torch.where(nearer, ahead.abs(), smallest)
        low, high = torch.where(ahead > 0, middle, low), torch.where(ahead > 0, high, middle)
    return torch.where(across[:, None, None, None], best, torch.nan), _HALVINGS + 2
