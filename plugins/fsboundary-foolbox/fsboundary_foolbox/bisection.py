"""From what an attack returns onto the boundary, along the line to where it started."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

HALVINGS = 40
"""Of the line from the clean image to the attack's: more than float32 images can tell apart."""


class Scores(Protocol):
    """Anything that gives logits: a view of a model, or a head."""

    def logits(self, images: Tensor, /) -> Tensor:
        """Return logits (B,K)."""
        ...


def onto_boundary(
    view: Scores,
    images: Tensor,
    found: Tensor,
    source: Tensor,
    targets: Tensor | Literal["nearest"],
) -> tuple[Tensor, int]:
    """Return what is nearest to a tie on the lines from `images` to `found`, and passes.

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

    each = (-1, *[1] * (images.ndim - 1))
    finite = torch.isfinite(found).flatten(1).all(dim=1)
    far = torch.where(finite.view(each), found, images)
    across = lead(far) <= 0
    low, high = torch.zeros(len(images), device=images.device), torch.ones_like(across).to(images)
    low = low.to(images)
    best, smallest = far.clone(), lead(far).abs()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        x = images + middle.view(each) * (far - images)
        ahead = lead(x)
        nearer = ahead.abs() < smallest
        best = torch.where(nearer.view(each), x, best)
        smallest = torch.where(nearer, ahead.abs(), smallest)
        low, high = torch.where(ahead > 0, middle, low), torch.where(ahead > 0, high, middle)
    return torch.where(across.view(each), best, torch.nan), HALVINGS + 2
