"""Arithmetic on a few generators of a large point set, each read once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.geometry.chunks import chunk_rows, chunks


def gathered(points: PointSet, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the generators of `wanted` (-1 is padding), ascending, and where they lie (U,d)."""
    rows = wanted[wanted >= 0].unique()
    return rows, points.take(rows).to(torch.float64)


def products(directions: Tensor, rows: Tensor, at: Tensor, indices: Tensor) -> Tensor:
    """Return float64 products (B,C) of directions (B,d) with `indices` (B,C), +inf for -1.

    Every index is one of `rows` (U,), which lie at `at` (U,d).
    """
    values = torch.full(indices.shape, torch.inf, dtype=torch.float64, device=indices.device)
    if len(rows):
        for part, own in _pieces(rows, at, indices):
            values[part] = (own @ directions[part, :, None])[..., 0]
    return torch.where(indices >= 0, values, torch.inf)


def combined(points: PointSet, support: Tensor, weights: Tensor) -> Tensor:
    """Return the sums (B,d) of the generators `support` (B,S) with `weights` (B,S), float64."""
    rows, at = gathered(points, support)
    out = torch.zeros(len(support), points.num_features, dtype=torch.float64, device=weights.device)
    if len(rows):
        for part, own in _pieces(rows, at, support):
            out[part] = (weights[part, None] @ own)[:, 0]
    return out


def _pieces(rows: Tensor, at: Tensor, indices: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the batch and the generators (b,C,d) of each; any point for padding."""
    place = torch.searchsorted(rows, indices.clamp_min(0)).clamp_max(len(rows) - 1)
    for part in chunks(len(indices), chunk_rows(indices.shape[1] * at.shape[1])):
        yield part, at[place[part]]
