"""Bisection from the result of an attack to the boundary, along the line to its start."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

NUM_HALVINGS = 40
"""Halvings of the line from the clean image to the attack's: more than float32 can resolve."""


class HasLogits(Protocol):
    """Protocol of objects with logits: a view of a model, or a head."""

    def logits(self, images: Tensor, /) -> Tensor:
        """Return logits (B,K)."""
        ...


def bisect_to_boundary(
    view: HasLogits,
    images: Tensor,
    proposed: Tensor,
    source: Tensor,
    targets: Tensor | Literal["nearest"],
) -> tuple[Tensor, int]:
    """Return the points nearest to a tie on the lines from `images` to `proposed`, and passes.

    NaN where `proposed` is not of another class, or not of its target: the success that an attack
    reports is not used.
    """

    def margin(x: Tensor) -> Tensor:
        """Return source logit minus target logit (B,), or minus the largest other logit."""
        logits = view.logits(x)
        source_logit = logits.gather(1, source[:, None])
        if isinstance(targets, Tensor):
            target_logit = logits.gather(1, targets[:, None])
        else:
            target_logit = logits.scatter(1, source[:, None], -torch.inf).amax(dim=1, keepdim=True)
        return (source_logit - target_logit)[:, 0]

    each = (-1, *[1] * (images.ndim - 1))
    finite = torch.isfinite(proposed).flatten(1).all(dim=1)
    far = torch.where(finite.view(each), proposed, images)
    across = margin(far) <= 0
    low, high = torch.zeros(len(images), device=images.device), torch.ones_like(across).to(images)
    low = low.to(images)
    best, smallest = far.clone(), margin(far).abs()
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        x = images + middle.view(each) * (far - images)
        ahead = margin(x)
        nearer = ahead.abs() < smallest
        best = torch.where(nearer.view(each), x, best)
        smallest = torch.where(nearer, ahead.abs(), smallest)
        low, high = torch.where(ahead > 0, middle, low), torch.where(ahead > 0, high, middle)
    return torch.where(across.view(each), best, torch.nan), NUM_HALVINGS + 2
