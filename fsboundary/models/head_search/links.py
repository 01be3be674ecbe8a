"""Functions of the logits that a model returns in their place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Link = Literal["identity", "softmax", "log_softmax", "sigmoid"]

SOFTMAX: dict[str, Link] = {"_softmax": "softmax", "_log_softmax": "log_softmax"}
"""Operations that are such functions for classes that exclude each other."""

SIGMOID: dict[str, Link] = {"sigmoid": "sigmoid"}
"""Operations that are such functions for separate labels."""


def apply_link(link: Link, logits: Tensor) -> Tensor:
    """Return the link applied to `logits` (B,K), in float64."""
    z = logits.detach().to(torch.float64)
    if link == "identity":
        return z
    if link == "sigmoid":
        return z.sigmoid()
    return z.softmax(dim=1) if link == "softmax" else z.log_softmax(dim=1)


def link_tolerance(link: Link, logits: Tensor, output: Tensor) -> Tensor:
    """Return the error bound (B,K) of a link in the model's own dtype against `apply_link`.

    The difference of a logit and the largest one is rounded once, which moves the logarithm by a
    roundoff of that difference; exponentials, their sum, its logarithm and the result add a few
    roundoffs each.
    """
    z = logits.detach().to(torch.float64)
    eps = max(torch.finfo(t).eps for t in (logits.dtype, output.dtype))
    if link == "sigmoid":
        return eps * (8 + 2 * z.abs()) * z.sigmoid() + torch.finfo(output.dtype).tiny
    spread = z.amax(dim=1, keepdim=True) - z
    log_error = eps * (8 + 2 * spread)
    if link == "log_softmax":
        return log_error
    return z.softmax(dim=1) * log_error + torch.finfo(output.dtype).tiny
