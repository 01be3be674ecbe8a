"""Small models whose flip images can be computed independently."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.plugins.interfaces import ImageBoundaryFinder


class Linear(nn.Module):
    """A model with a linear body: (B,1,4,4) -> 10 features -> logits, float64."""

    def __init__(self, seed: int = 0, classes: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body, self.head = nn.Linear(16, 10), nn.Linear(10, classes)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.7)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x.flatten(1)))
        return out

    def composed(self) -> fsb.LinearHead:
        """Return the map from pixels to logits as one head on the box of pixels."""
        weight = self.head.weight @ self.body.weight
        bias = self.head.weight @ self.body.bias + self.head.bias
        return fsb.LinearHead(weight, bias, fsb.Domain.box(torch.zeros(16), torch.ones(16)))


def kinked(seed: int = 0, width: int = 16) -> nn.Sequential:
    """Return a two-layer ReLU net of 2 inputs and 3 classes, float64."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 3)
        # kinks across the unit square, and every class somewhere in it
        inside = torch.rand(width, 2, generator=generator)
        model[1].bias.copy_(-(model[1].weight * inside).sum(dim=1))
        seen = model(torch.rand(500, 2, generator=generator))
        model[3].bias.sub_(seen.mean(dim=0))
    return model.double().eval().requires_grad_(False)


def pictures(count: int, *shape: int, seed: int = 1) -> Tensor:
    """Return `count` float64 images of random pixels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)


class FixedProposal(ImageBoundaryFinder):
    """A finder that returns `change` of the clean images, with any claims."""

    def __init__(self, change, passes: int = 0, gradients: int = 0, **claims: object) -> None:
        self.change, self.claims = change, claims
        self.passes, self.gradients = passes, gradients

    def find(self, view, images, *, targets, bounds, norm, max_steps):
        for _ in range(self.passes):
            view.logits(images)
        for _ in range(self.gradients):
            shown = images.clone().requires_grad_()
            view.logits(shown).sum().backward()
        nan = torch.full((len(images),), torch.nan, dtype=torch.float64)
        code = torch.zeros(len(images), dtype=torch.int64)
        fields = {
            "images": self.change(images),
            "distance": nan,
            "residual": nan,
            "source": code,
            "target": code,
            "status": code + int(Status.CONVERGED),
            "num_backwards": code,
            "num_forwards": code,
        }
        return FlipImages(**fields | self.claims)
