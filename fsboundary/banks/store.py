"""Stores of bank rows: the interface, and the reductions over all rows that stores share.

Reductions are the coordinate range, the moments, digests, and the smallest products of directions
with the rows (ties by the lowest row). They read one chunk at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from fsboundary.core.protocols import Moments
from fsboundary.core.results.base.display import html_table
from fsboundary.modes import has_ieee_products
from fsboundary.threads import map_in_threads, num_threads


@final
@dataclass(frozen=True, slots=True)
class BankInfo:
    """Origin of the features of a bank; empty strings for raw tensors.

    Attributes
    ----------
    fingerprint : str
        Digest of head, extractor and layer, as :attr:`fsboundary.FeatureSpace.fingerprint`.
    extractor : str
        Dotted name of the class of the feature extractor.
    layer : str
        Layer whose input the features are.
    domain : str
        Kind of the domain: "unbounded", "nonnegative" or "box".

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> bank.info
    BankInfo(fingerprint='', extractor='', layer='', domain='')
    """

    fingerprint: str = ""
    extractor: str = ""
    layer: str = ""
    domain: str = ""

    def table(self, head: str) -> str:
        """Return what is known as a table for notebooks, with the caption `head`."""
        return html_table(head, [(name, text) for name, text in asdict(self).items() if text])


def to_array(values: Tensor) -> NDArray[Any]:
    """Return values on the CPU as an array without a copy; bfloat16 as its bits."""
    bits = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    array: NDArray[Any] = bits.numpy()
    return array


def to_tensor(array: NDArray[Any]) -> Tensor:
    """Return the tensor whose :func:`to_array` is `array`."""
    values = torch.from_numpy(array)
    return values.view(torch.bfloat16) if array.dtype == np.uint16 else values


def k_smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest numbers of each row, ascending, and their columns.

    Wide rows are split into groups of adjacent columns. The k smallest numbers lie in the k groups
    with the smallest minima: each of these contains a number that precedes every number of another
    group, by its value or, on a tie, by its column. A minimum is several times cheaper than a
    selection.

    Parameters
    ----------
    values : Tensor (B, n)
        Numbers without NaN; +inf for columns to exclude.
    k : int
        Count, 1 to n.

    Returns
    -------
    smallest, columns : Tensor (B, k)
        Numbers and their columns; columns of +inf are arbitrary.
    """
    columns = values.shape[1]
    width = 32 if columns > 1024 else 8
    if columns <= 2 * width * max(k, 2):
        return _select_smallest(values, k)
    missing = -columns % width
    # pad copies, even if no column is missing
    padded = pad(values, (0, missing), value=torch.inf) if missing else values
    grouped = padded.unflatten(1, (-1, width))
    groups = k_smallest(grouped.amin(dim=2), k)[1].sort(dim=1)[0]
    members = groups[:, :, None] * width + torch.arange(width, device=values.device)
    members = members.flatten(1)
    best, positions = k_smallest(grouped.flatten(1).gather(1, members), k)
    return best, members.gather(1, positions)


def _select_smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest; one more is selected to detect ties, which topk leaves unordered."""
    best, columns = values.topk(min(k + 1, values.shape[1]), dim=1, largest=False)
    tied = ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] < torch.inf)).any(dim=1)
    rows = tied.nonzero()[:, 0]
    if len(rows):
        in_order, order = values[rows].sort(dim=1, stable=True)
        best[rows] = in_order[:, : best.shape[1]]
        columns[rows] = order[:, : best.shape[1]]
    return best[:, :k], columns[:, :k]


class Store(ABC):
    """n immutable rows of width d with ids and optional labels.

    Rows are finite: float16, bfloat16, float32 or float64. Arguments were checked by the bank.
    Reductions over all rows read one chunk after the other, unless a store overrides them.
    Everything except the chunks belongs to the caller, who may write to it.
    """

    info: BankInfo
    num_features: int
    dtype: torch.dtype
    seal: str = ""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, features (c,d))`` in order of rows, one chunk in memory at a time.

        The chunks may be views of the store's own rows, or of memory that is used again for the
        next chunk: only this package gets them, to read before it requests the next one.
        """

    @abstractmethod
    def take(self, rows: Tensor) -> Tensor:
        """Return the features (m,d) at `rows` (m,) as float64."""

    @abstractmethod
    def features(self) -> Tensor:
        """Return all features (n,d) in their dtype, completely in memory."""

    @abstractmethod
    def labels(self) -> Tensor | None:
        """Return all labels (n,) int64, or None."""

    @abstractmethod
    def ids(self) -> Tensor:
        """Return all ids (n,) int64."""

    @abstractmethod
    def subset(self, rows: Tensor) -> Store:
        """Return the store of only `rows` (m,), ascending."""

    def price(self, directions: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products of each direction, and their rows."""
        return price(self, directions, k, exclude)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of each coordinate, (d,) each, as float64."""
        return _coordinate_range(self)

    def moments(self) -> Moments:
        """Return count, mean, sum of squares about the mean and largest norm."""
        return _moments(self)

    def digests(self) -> Tensor:
        """Return a 128-bit digest of each row, (n,2) int64, equal for rows with the same point."""
        return _digests(self)


_NUMBERS = 2**17
"""Count of numbers reduced at once in float64, about the size of a core's cache."""


def _coordinate_range(store: Store) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each coordinate, (d,) each, as float64."""
    ends = [torch.stack(chunk.aminmax(dim=0)) for _, chunk in store.chunks()]
    both = torch.stack(ends).to(torch.float64)
    return both[:, 0].amin(dim=0), both[:, 1].amax(dim=0)


def _moments(store: Store) -> Moments:
    """Return the moments of all rows, in one pass."""
    total = None
    for _, chunk in store.chunks():
        for piece in chunk.split(max(1, _NUMBERS // store.num_features)):
            points = piece.cpu().to(torch.float64)
            mean = points.mean(dim=0)
            sum_of_squares = (points - mean).square().sum()
            largest = torch.linalg.vector_norm(points, dim=1).max()
            part = Moments(len(points), mean, sum_of_squares, largest)
            total = part if total is None else join_moments(total, part)
    assert total is not None, "a bank has at least one row"
    return total


def join_moments(one: Moments, other: Moments) -> Moments:
    """Return the moments of the union of two sets of points.

    The sums of squares are joined about the common mean (Chan, Golub and LeVeque 1983), so nothing
    cancels if the points lie far from the origin.
    """
    count = one.count + other.count
    fraction = other.count / count
    between = other.mean - one.mean
    return Moments(
        count,
        one.mean + fraction * between,
        one.sum_of_squares + other.sum_of_squares + one.count * fraction * between.square().sum(),
        torch.maximum(one.largest, other.largest),
    )


def _digests(store: Store) -> Tensor:
    """Return a 128-bit digest of each row, (n,2) int64, equal for rows with the same point."""
    digests = bytearray()
    for _, chunk in store.chunks():
        if chunk.dtype != torch.float64:
            chunk = chunk.to(torch.float32)  # the same number in all narrower dtypes
        # adding zero turns -0.0 into 0.0, which is the same point
        for point in (chunk.cpu() + 0.0).numpy():
            digests += blake2b(point, digest_size=16).digest()
    return torch.from_numpy(np.frombuffer(digests, np.int64).reshape(-1, 2))


_PRODUCTS = 2**24
"""Count of products computed at once: 128 MiB of float64, with enough rows per matrix product."""

_FEWEST = 32
"""Directions priced together: a pass of fewer reads all rows for too little work."""


def price(
    store: Store, directions: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest products (B,k) of each direction, and their rows (B,k).

    Parameters
    ----------
    store : Store
        Generators.
    directions : Tensor (B, d)
        Directions, float32 or float64, which is the dtype of the products. Where float32 products
        are less precise than IEEE arithmetic, they are computed in float64 and then rounded.
    k : int
        Number of products per direction, at least 1.
    exclude : Tensor (B, E), optional
        Rows to exclude for each direction, -1 for none.

    Returns
    -------
    values, indices : Tensor (B, k)
        Products and their rows, ascending; ties by the lowest row; +inf and -1 where there are no
        more rows. NaN and -1 for directions that are not finite.
    """
    if directions.dtype == torch.float32 and not has_ieee_products(directions.device):
        values, indices = price(store, directions.to(torch.float64), k, exclude)
        return values.to(torch.float32), indices
    count = len(directions)
    finite = torch.isfinite(directions).all(dim=1)
    directions = torch.where(finite[:, None], directions, 0)
    values = directions.new_full((count, k), torch.inf)
    indices = torch.full((count, k), -1, dtype=torch.int64, device=directions.device)
    converted = directions.new_empty(0, store.num_features)
    buffers: list[Tensor] = []
    threads = num_threads()
    share = max(_FEWEST, -(-count // threads))
    for start, chunk in store.chunks():
        if (chunk.dtype, chunk.device) != (directions.dtype, directions.device):
            if len(converted) < len(chunk):
                converted = directions.new_empty(chunk.shape)
            chunk = converted[: len(chunk)].copy_(chunk)
        step = max(1, min(share, _PRODUCTS // (threads * len(chunk))))

        def reduce(part: slice, start: int = start, chunk: Tensor = chunk) -> None:
            queries = directions[part]
            try:
                buffer = buffers.pop()
            except IndexError:  # all are in use
                buffer = directions.new_empty(0)
            # allocating memory of this size costs as much as the product that fills it
            if len(buffer) < len(queries) * len(chunk):
                buffer = directions.new_empty(len(queries) * len(chunk))
            products = buffer[: len(queries) * len(chunk)].view(len(queries), len(chunk))
            torch.mm(queries, chunk.T, out=products)
            if exclude is not None:
                _mask_excluded(products, exclude[part] - start)
            # late chunks have nothing better for most rows, and a minimum costs less than a
            # selection; a row with NaN, from products that overflow, is not left out
            rows = (~(products.amin(dim=1) >= values[part, -1])).nonzero()[:, 0]
            if len(rows):
                if len(rows) < len(products):
                    products = products.index_select(0, rows)
                best, columns = k_smallest(products, min(k, len(chunk)))
                rows += part.start
                values[rows], indices[rows] = merge_smallest(
                    values[rows], indices[rows], best, columns + start
                )
            buffers.append(buffer)

        parts = [slice(first, min(first + step, count)) for first in range(0, count, step)]
        map_in_threads(directions.device, reduce, parts)
    indices[(values == torch.inf) | ~finite[:, None]] = -1
    values[~finite] = torch.nan
    return values, indices


def merge_smallest(
    values: Tensor, indices: Tensor, best: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the k smallest of `values` (B,k) and `best` (B,c), and their rows, (B,k) each.

    `indices` (B,k) are lower than all of `rows` (B,c), so a stable sort keeps them first.
    """
    both, order = torch.cat([values, best], dim=1).sort(dim=1, stable=True)
    sources = torch.cat([indices, rows], dim=1).gather(1, order)
    return both[:, : values.shape[1]], sources[:, : values.shape[1]]


def _mask_excluded(products: Tensor, columns: Tensor) -> None:
    """Set the products at those of `columns` (B,E) that lie in this chunk to +inf."""
    here = (columns >= 0) & (columns < products.shape[1])
    rows, entries = here.nonzero(as_tuple=True)
    products[rows, columns[rows, entries]] = torch.inf


def batches_of(rows: Store | Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield batches of at most `size` rows with the index of the first; the next may overwrite."""
    for start, chunk in rows.chunks() if isinstance(rows, Store) else [(0, rows)]:
        for first in range(0, len(chunk), size):
            yield start + first, chunk[first : first + size]
