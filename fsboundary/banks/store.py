"""Where the features of a bank came from.

The k smallest numbers of each row, ties by the lowest column.

What a bank asks of the place where its rows are kept.

What is asked of all rows of a store at once, from one chunk after the other.

Products of directions with every row of a store, one chunk at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fsboundary.core.protocols import Moments


@final
@dataclass(frozen=True, slots=True)
class BankInfo:
    """What produced the features of a bank; empty strings for raw tensors.

    Attributes
    ----------
    fingerprint : str
        Digest of head, extractor and layer, as :attr:`fsboundary.FeatureSpace.fingerprint`.
    extractor : str
        Class of the feature extractor, dotted.
    layer : str
        The layer whose input the features are.
    domain : str
        "unbounded", "nonnegative" or "box".
    """

    fingerprint: str = ""
    extractor: str = ""
    layer: str = ""
    domain: str = ""


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest of each row, ascending, and their columns.

    Wide rows are cut into groups of neighbours. The k smallest numbers lie in the k groups of
    smallest minimum: each of those holds a number that comes before any number of another group,
    by its value or, on a tie, by its column. A minimum is several times cheaper than a selection.

    Parameters
    ----------
    values : Tensor (B, n)
        No NaN; +inf for columns to leave out.
    k : int
        1 to n.

    Returns
    -------
    smallest, columns : Tensor (B, k)
        Columns of +inf mean nothing.
    """
    columns = values.shape[1]
    width = 32 if columns > 1024 else 8
    if columns <= 2 * width * max(k, 2):
        return _selected(values, k)
    lack = -columns % width
    # pad copies, even where nothing is lacking
    padded = pad(values, (0, lack), value=torch.inf) if lack else values
    grouped = padded.unflatten(1, (-1, width))
    groups = smallest(grouped.amin(dim=2), k)[1].sort(dim=1)[0]
    members = groups[:, :, None] * width + torch.arange(width, device=values.device)
    members = members.flatten(1)
    best, picked = smallest(grouped.flatten(1).gather(1, members), k)
    return best, members.gather(1, picked)


def _selected(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest; one more is selected to see ties, whose order topk leaves open."""
    best, columns = values.topk(min(k + 1, values.shape[1]), dim=1, largest=False)
    tied = ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] < torch.inf)).any(dim=1)
    rows = tied.nonzero()[:, 0]
    if len(rows):
        in_order, order = values[rows].sort(dim=1, stable=True)
        best[rows] = in_order[:, : best.shape[1]]
        columns[rows] = order[:, : best.shape[1]]
    return best[:, :k], columns[:, :k]


class Store(ABC):
    """n rows of width d with ids and perhaps labels; never changed once made.

    Rows are finite, float32 or float64. Arguments were checked by the bank. Questions about all
    rows are answered from one chunk after the other, unless a store has a better way.
    """

    info: BankInfo
    num_features: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, features (c,d))`` in order of rows, one chunk in memory at a time."""

    @abstractmethod
    def take(self, rows: Tensor) -> Tensor:
        """Return the features (m,d) at `rows` (m,), in float64."""

    @abstractmethod
    def features(self) -> Tensor:
        """Return all features (n,d): everything at once in memory."""

    @abstractmethod
    def labels(self) -> Tensor | None:
        """Return all labels (n,) int64, or None."""

    @abstractmethod
    def ids(self) -> Tensor:
        """Return all ids (n,) int64."""

    @abstractmethod
    def subset(self, rows: Tensor) -> Store:
        """Return the store of `rows` (m,) alone, ascending."""

    def price(self, directions: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products of each direction, and their rows."""
        return price(self, directions, k, exclude)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest of each coordinate, (d,) and (d,), in float64."""
        return range_of(self)

    def moments(self) -> Moments:
        """Return count, mean, squares about the mean and largest norm."""
        return moments_of(self)

    def digests(self) -> Tensor:
        """Return 128 bits of each row (n,2) int64, the same for rows that hold the same point."""
        return digests_of(self)


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
