"""A space that is linear in the pixels, whose answers have closed forms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import fsboundary as fsb


class LinearCase(NamedTuple):
    """A space whose logits are ``weight @ pixels + bias``, and images of it."""

    space: fsb.FeatureSpace
    images: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def predicted(self) -> Tensor:
        return self.logits(self.images).argmax(dim=1)

    def logits(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() @ self.weight.T + self.bias

    def margins(self, images: Tensor) -> Tensor:
        """Return how far the class of `self.images` leads in `images`, by the obvious way."""
        rows = zip(self.logits(images), self.predicted.tolist(), strict=True)
        return torch.stack(
            [row[own] - max(value for k, value in enumerate(row) if k != own) for row, own in rows]
        )
