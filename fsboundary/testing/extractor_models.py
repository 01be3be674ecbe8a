"""The model and the images that extractors are checked with, unless they bring their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, CLASSES = 6, 4


def small_model(seed: int) -> nn.Module:
    """Return a network in eval mode; its last two hidden layers are equally wide."""
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    ]
    model = nn.Sequential(*layers)
    redraw(model, seed)
    return model.eval()


def redraw(model: nn.Module, seed: int) -> None:
    """Replace every weight by a normal number, without touching the global generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            # wide enough that classes differ, small enough that deep sums stay of size 1
            spread = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(1.4 * spread * torch.randn(p.shape, generator=generator))


def small_images(rows: int, seed: int) -> Tensor:
    """Return images (rows,3,8,8), in [0, 1]."""
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
