"""Oracle of the prices of a bank, by the shortest possible code."""

from __future__ import annotations

import torch
from torch import Tensor


def price(
    points: Tensor, directions: Tensor, k: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest products by sorting all, in the dtype of the directions."""
    products = directions @ points.to(directions).T
    if exclude is not None:
        for row, excluded in enumerate(exclude.tolist()):
            products[row, [i for i in _as_list(excluded) if i >= 0]] = torch.inf
    products = torch.cat([products, products.new_full((len(directions), k), torch.inf)], dim=1)
    values, columns = products.sort(dim=1, stable=True)
    columns[values == torch.inf] = -1
    return values[:, :k], columns[:, :k]


def whole_numbers(*shape: int, seed: int = 0, largest: int = 3) -> Tensor:
    """Return small whole numbers, whose products are exact and have many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, shape, generator=generator).float()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _as_list(one_or_more: int | list[int]) -> list[int]:
    return [one_or_more] if isinstance(one_or_more, int) else one_or_more
