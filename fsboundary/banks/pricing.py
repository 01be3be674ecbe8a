"""Products of directions with every row of a store, one chunk at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsboundary.banks.smallest import smallest

if TYPE_CHECKING:  # a store answers with this function
    from fsboundary.banks.store import Store

_PRODUCTS = 2**24
"""Products held at once: 128 MiB of float64, and enough rows to a matrix product."""


def price(
    store: Store, directions: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest products (B,k) of each direction, and their rows (B,k).

    Parameters
    ----------
    store : Store
        The generators.
    directions : Tensor (B, d)
        Float32 or float64, which is the dtype of the products.
    k : int
        At least 1.
    exclude : Tensor (B, E), optional
        Rows to leave out for each direction, -1 for none.

    Returns
    -------
    values, indices : Tensor (B, k)
        Ascending; ties by the lowest row; +inf and -1 where there are no more rows. NaN and -1
        for directions that are not finite.
    """
    count = len(directions)
    finite = torch.isfinite(directions).all(dim=1)
    directions = torch.where(finite[:, None], directions, 0)
    values = directions.new_full((count, k), torch.inf)
    indices = torch.full((count, k), -1, dtype=torch.int64, device=directions.device)
    for start, chunk in store.chunks():
        generators = chunk.to(directions).T
        step = max(1, min(count, _PRODUCTS // len(chunk)))
        # fresh memory of this size costs as much as the product that fills it
        held = directions.new_empty(step, len(chunk))
        for first in range(0, count, step):
            part = slice(first, first + step)
            rows = directions[part]
            products = torch.mm(rows, generators, out=held[: len(rows)])
            if exclude is not None:
                _leave_out(products, exclude[part] - start)
            best, columns = smallest(products, min(k, len(chunk)))
            values[part], indices[part] = merged(values[part], indices[part], best, columns + start)
    indices[(values == torch.inf) | ~finite[:, None]] = -1
    values[~finite] = torch.nan
    return values, indices


def merged(values: Tensor, indices: Tensor, best: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest of `values` (B,k) and `best` (B,c), and where they lie, (B,k) each.

    `indices` (B,k) are lower than all of `rows` (B,c), so a stable sort keeps them first.
    """
    both, order = torch.cat([values, best], dim=1).sort(dim=1, stable=True)
    which = torch.cat([indices, rows], dim=1).gather(1, order)
    return both[:, : values.shape[1]], which[:, : values.shape[1]]


def _leave_out(products: Tensor, columns: Tensor) -> None:
    """Set the products at `columns` (B,E) to +inf, where they lie in this chunk."""
    here = (columns >= 0) & (columns < products.shape[1])
    rows, which = here.nonzero(as_tuple=True)
    products[rows, columns[rows, which]] = torch.inf
