"""What is asked of all rows of a store at once, from one chunk after the other."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.protocols import Moments

if TYPE_CHECKING:  # a store answers with these functions
    from fsboundary.banks.store import Store

_NUMBERS = 2**17
"""Numbers that are measured at once in float64: about what a core's cache holds."""


def range_of(store: Store) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest of each coordinate, (d,) and (d,), in float64."""
    ends = [torch.stack(chunk.aminmax(dim=0)) for _, chunk in store.chunks()]
    both = torch.stack(ends).to(torch.float64)
    return both[:, 0].amin(dim=0), both[:, 1].amax(dim=0)


def moments_of(store: Store) -> Moments:
    """Return the sizes of all rows together, from one pass."""
    total = None
    for _, chunk in store.chunks():
        for piece in chunk.split(max(1, _NUMBERS // store.num_features)):
            points = piece.cpu().to(torch.float64)
            mean = points.mean(dim=0)
            squares = (points - mean).square().sum()
            largest = torch.linalg.vector_norm(points, dim=1).max()
            found = Moments(len(points), mean, squares, largest)
            total = found if total is None else joined(total, found)
    assert total is not None, "a bank has one row at least"
    return total


def joined(one: Moments, other: Moments) -> Moments:
    """Return the moments of two sets of points together.

    The squares are joined about the common mean (Chan, Golub and LeVeque 1983), so nothing
    cancels where the points lie far from the origin.
    """
    count = one.count + other.count
    share = other.count / count
    between = other.mean - one.mean
    return Moments(
        count,
        one.mean + share * between,
        one.squares + other.squares + one.count * share * between.square().sum(),
        torch.maximum(one.largest, other.largest),
    )


def digests_of(store: Store) -> Tensor:
    """Return 128 bits of each row (n,2) int64, the same for rows that hold the same point."""
    digests = bytearray()
    for _, chunk in store.chunks():
        # adding zero turns -0.0 into 0.0, which is the same point
        for point in (chunk.cpu() + 0.0).numpy():
            digests += blake2b(point, digest_size=16).digest()
    return torch.from_numpy(np.frombuffer(digests, np.int64).reshape(-1, 2))
