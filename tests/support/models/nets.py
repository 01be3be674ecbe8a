"""Small models used by several extraction tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, CLASSES = 6, 4


class Net(nn.Module):
    """A ReLU body, a linear head ``fc``, and any function of the logits as the output."""

    def __init__(self, output: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, WIDTH), nn.ReLU())
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.output = output
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.output(self.fc(self.body(x)))


class Last(nn.Module):
    """A given body and a given head in sequence, followed by a function."""

    def __init__(
        self, body: nn.Module, head: nn.Module, output: Callable[[Tensor], Any] = lambda y: y
    ) -> None:
        super().__init__()
        self.body, self.head, self.output = body, head, output
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.output(self.head(self.body(x)))


def images(rows: int = 5, seed: int = 1) -> Tensor:
    """Return images (rows,3,2,2)."""
    return torch.randn(rows, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
