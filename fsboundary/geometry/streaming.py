"""All generators of a point set, one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.geometry.chunks import chunk_rows, chunks


def streamed(points: PointSet) -> Iterator[Tensor]:
    """Yield the generators in order, (c,d) float64 each."""
    for part in chunks(len(points), chunk_rows(points.num_features, 4096)):
        yield points.take(torch.arange(part.start, part.stop)).to(torch.float64)
