"""Features with a graph back to the pixels, whatever the mode of the caller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.space import FeatureSpace


def watched_features(
    space: FeatureSpace, inputs: tuple[Tensor, ...], additional: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return copies of `inputs` that take gradients, and their features (B,d)."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():  # NoiseTunnel and robust metrics call without
        return leaves, space.features(*leaves, *additional)


def pulled_back(features: Tensor, leaves: tuple[Tensor, ...], unit: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of ``unit . features`` with respect to each of `leaves`.

    Raises
    ------
    ArgumentError
        The features have no gradient.
    """
    if not features.requires_grad:
        raise ArgumentError(
            "model",
            "features without a gradient",
            "a body that autograd follows back to the images",
            "take detach(), no_grad() and roundings out of its forward, or use a method that "
            "needs no gradient",
        )
    grads: tuple[Tensor, ...] = torch.autograd.grad(features, leaves, unit.to(features))
    return grads
