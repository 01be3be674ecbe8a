"""Small models and oracles for the tests of attr."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fsboundary as fsb


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return `model` in eval mode and float64, its weights drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.5)
    return model


def smooth() -> nn.Module:
    """Return a classifier of images (B,1,2,3) with 5 smooth features and 4 classes."""
    return filled(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))


def positive(seed: int = 8) -> nn.Module:
    """Return the same with positive features; with seed 0 the region of class 1 is empty."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 4))
    return filled(model, seed)


def linear() -> tuple[nn.Sequential, Tensor]:
    """Return a classifier with a linear body, images (B,1,2,3) to 6 features, and its matrix."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 6, bias=False), nn.Identity(), nn.Linear(6, 4))
    filled(model)
    body: Tensor = model[1].weight.detach()
    return model, body


def images(rows: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 1, 2, 3, generator=generator, dtype=torch.float64)


def bank(space: fsb.FeatureSpace, rows: int = 12, seed: int = 2) -> fsb.FeatureBank:
    """Return the features of `rows` images, with labels 0 to 3 in turn."""
    return space.bank([(images(rows, seed), torch.arange(rows) % 4)])
