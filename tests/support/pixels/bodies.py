"""Small models whose inverse images, morphs and singular values are known independently."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fsboundary as fsb

SHAPE = (1, 3, 4)
PIXELS = 12


def linear(features: int = 5, classes: int = 3, seed: int = 0) -> fsb.FeatureSpace:
    """Return a space of float64 images (B,1,3,4) whose features are a linear map of the pixels."""
    return _space(nn.Linear(PIXELS, features), nn.Identity(), features, classes, seed)


def smooth(features: int = 5, classes: int = 3, seed: int = 0) -> fsb.FeatureSpace:
    """Return a space whose features are in (-1, 1)."""
    return _space(nn.Linear(PIXELS, features), nn.Tanh(), features, classes, seed)


def positive(seed: int = 0) -> fsb.FeatureSpace:
    """Return a space whose features are not negative."""
    return _space(nn.Linear(PIXELS, 5), nn.ReLU(), 5, 3, seed)


class Constant(nn.Module):
    """A model whose features do not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3))
            self.head.bias.zero_()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        nothing = 0 * x.flatten(1)[:, :1]  # the graph leads to the image, the values do not
        out: Tensor = self.head(self.value + nothing)
        return out


def images(rows: int, seed: int = 1) -> Tensor:
    """Return images (rows,1,3,4) in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, *SHAPE, generator=generator, dtype=torch.float64)


def matrix(space: fsb.FeatureSpace) -> tuple[Tensor, Tensor]:
    """Return weight (d,12) and bias (d,) of the body's linear layer."""
    layer = space.model.get_submodule("1")
    assert isinstance(layer, nn.Linear)
    return layer.weight.detach(), layer.bias.detach()


def _space(
    body: nn.Module, after: nn.Module, features: int, classes: int, seed: int
) -> fsb.FeatureSpace:
    model = nn.Sequential(nn.Flatten(), body, after, nn.Linear(features, classes)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)
    return fsb.FeatureSpace(model)
