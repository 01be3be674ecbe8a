"""Entries of the test matrix of architectures, and weights that make their features vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

CLASSES = 7


class Family(NamedTuple):
    """One architecture and the expected properties of its head.

    ``layer`` is the head's dotted name, ``nonnegative`` whether the structure proves nonnegative
    features, ``shape`` that of one image, ``pooled`` whether features are means over space,
    ``output`` which part of the output is the logits if several have a linear head.
    """

    build: Callable[[], nn.Module]
    layer: str
    nonnegative: bool
    shape: tuple[int, ...] = (3, 32, 32)
    pooled: bool = False
    output: int | None = None


def randomize_weights(model: nn.Module) -> nn.Module:
    """Draw weights that keep activations of order one, so that no check passes on zeros.

    Freshly initialised classifiers are often useless here: heads start at zero, residual scales at
    1e-6, and batch norms without statistics let signals vanish.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(like: torch.Tensor, mean: float, std: float) -> torch.Tensor:
        return mean + std * torch.randn(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.copy_(normal(p, 0.0, (2.0 / p[0].numel()) ** 0.5))
            else:
                p.copy_(normal(p, *((0.0, 0.3) if name.endswith("bias") else (1.0, 0.1))))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(normal(b, 0.0, 0.1))
            elif name.endswith("running_var"):
                b.copy_(normal(b, 1.0, 0.1))
    return model.eval()
