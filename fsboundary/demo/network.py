"""The demo's network: a small ResNet with 64 last-layer features."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

NUM_FEATURES = 64
NUM_CLASSES = 10
SHARPNESS = 20.0
"""Sharpness (beta) of the Softplus activations: close to a ReLU, but smooth, so that gradients have
no jumps and their integrals converge (Dombrowski et al., "Explanations can be manipulated and
geometry is to blame", NeurIPS 2019)."""


@final
class Block(nn.Module):
    """A pre-2016 residual block: two 3x3 convolutions, batch norm, Softplus after the sum."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        # separate modules, because methods that hook activations, such as DeepLift, require it
        self.activation1 = nn.Softplus(beta=SHARPNESS)
        self.activation2 = nn.Softplus(beta=SHARPNESS)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,width_in,H,W) to (B,width_out,H/stride,W/stride)."""
        y = self.activation1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = self.activation2(y + self.shortcut(x))
        return out


@final
class SmallResNet(nn.Module):
    """ResNet-14 for 28x28 grey images: (B,1,28,28) normalised -> (B,10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.Softplus(beta=SHARPNESS)
        )
        self.blocks = nn.Sequential(
            Block(16, 16, 1),
            Block(16, 16, 1),
            Block(16, 32, 2),
            Block(32, 32, 1),
            Block(32, NUM_FEATURES, 2),
            Block(NUM_FEATURES, NUM_FEATURES, 1),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B,10) of normalised images (B,1,28,28)."""
        out: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return out


@final
class Normalize(nn.Module):
    """Normalise pixels in [0, 1] to zero mean and unit variance over the training set."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float = 0.2860, std: float = 0.3530) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, any shape."""
        return (images - self.mean) / self.std
