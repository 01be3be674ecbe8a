"""What a model may do to its logits before it returns them: nothing, softmax or log-softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Link = Literal["identity", "softmax", "log_softmax"]
LINKS: tuple[Link, ...] = ("identity", "softmax", "log_softmax")


def applied(link: Link, logits: Tensor) -> Tensor:
    """Return the link of `logits` (B,K), in float64."""
    z = logits.detach().to(torch.float64)
    if link == "identity":
        return z
    return z.softmax(dim=1) if link == "softmax" else z.log_softmax(dim=1)


def rounding(link: Link, logits: Tensor, output: Tensor) -> Tensor:
    """Return how far (B,K) a softmax in the model's own dtype may be from `applied`.

    A logit's distance to the largest is rounded once, which moves the logarithm by a roundoff of
    that distance; exponentials, their sum, its logarithm and the result add a few roundoffs each.
    """
    z = logits.detach().to(torch.float64)
    eps = max(torch.finfo(t).eps for t in (logits.dtype, output.dtype))
    spread = z.amax(dim=1, keepdim=True) - z
    moved = eps * (8 + 2 * spread)
    if link == "log_softmax":
        return moved
    return z.softmax(dim=1) * moved + torch.finfo(output.dtype).tiny
