"""A point of the domain for each class at which all other logits are low and nearly equal.

Half way between two of them the two classes tie far above the rest, wherever the weights allow
it: such points are where the search for facets starts. They are proposals and prove nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 100
"""Projected gradient steps, accelerated (Nesterov)."""

RIDGE = 1e-4
"""Share of the mean eigenvalue that is added to all, so that weak directions stay short."""

INNER = 0.02
"""Points keep this share of their mean entry from the domain's faces."""


def class_points(
    weight: Tensor, bias: Tensor, lower: Tensor, upper: Tensor, origin: Tensor, height: float
) -> Tensor:
    """Return one point (K,f) a class: least squares for logits `height` above the mean or at it.

    Parameters
    ----------
    weight, bias : Tensor (K, f), (K,)
    lower, upper : Tensor (f,)
        The domain.
    origin : Tensor (f,)
        Where to start, a point of the domain among the regions.
    height : float
        Logit units.
    """
    centred, offset = _centred(weight, bias, origin)
    gram = centred.T @ centred
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    wanted = height * torch.eye(len(bias), dtype=gram.dtype) - height / len(bias) - offset
    pull = wanted @ centred
    rate = 1 / torch.linalg.matrix_norm(gram, 2).clamp_min(torch.finfo(gram.dtype).tiny)
    z = ahead = torch.zeros_like(pull)
    low, high = lower - origin, upper - origin
    for step in range(STEPS):
        after = (ahead - rate * (ahead @ gram - pull)).clamp(low, high)
        ahead, z = after + step / (step + 3) * (after - z), after
    inner = torch.minimum(INNER * z.abs().mean(), (upper - lower) / 4)
    return (origin + z).clamp(lower + inner, upper - inner)


def heights(
    weight: Tensor, bias: Tensor, lower: Tensor, upper: Tensor, origin: Tensor
) -> list[float]:
    """Return logits worth trying: from many times the spread in the domain to the spread."""
    centred, offset = _centred(weight, bias, origin)
    width = upper - lower
    width = torch.where(torch.isfinite(width), width, 0.0)
    spread = float((centred.square() @ width.square()).mean().sqrt() / 12**0.5)
    base = spread + 3 * float(offset.abs().max())
    if base == 0:
        base = float(centred.square().sum(dim=1).mean().sqrt())
    return [16 * base, base]


def _centred(weight: Tensor, bias: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights less their mean, and logits at the origin less theirs."""
    centred = weight - weight.mean(dim=0)
    return centred, centred @ origin + bias - bias.mean()
