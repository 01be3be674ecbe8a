"""Functions of rows, computed by the workers of a cluster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask.array
import torch
from distributed import Future, default_client
from torch import Tensor

from fsboundary.banks.cluster.distributed import Cluster, DistributedStore, Shard, connect
from fsboundary.banks.cluster.workers import Array
from fsboundary.banks.store import Store, batches_of, to_array, to_tensor
from fsboundary.core.errors import ArgumentError
from fsboundary.modes import in_standard_modes


def map_on_workers(
    function: Callable[..., Any],
    reference: object,
    rows: Store | Tensor | dask.array.Array,
    client: object,
    batch_size: int,
    options: dict[str, Any],
) -> Iterator[tuple[int, Any]]:
    """Return the results for batches of rows, computed by workers; see ``fsboundary.map_rows``."""
    shared = function, reference, options
    if isinstance(rows, DistributedStore) and client is None:
        cluster, pieces = rows.cluster, _pieces_of_shards(rows, batch_size)
    elif isinstance(rows, dask.array.Array):
        cluster = connect(_client_of(client))
        pieces = _pieces_of_blocks(rows, cluster, batch_size)
    else:
        cluster, pieces = connect(client), _pieces_here(rows, batch_size)
    return _results(cluster, pieces, shared)


Piece = tuple[int, Callable[[], tuple[Any, dict[str, Any]]]]
"""First row of a batch, and a function that returns an argument of :func:`apply` for it, with the
keyword arguments of ``Client.submit``."""


def _results(
    cluster: Cluster, pieces: Iterator[Piece], shared: object
) -> Iterator[tuple[int, Any]]:
    starts = list[int]()

    def items() -> Iterator[Any]:
        for start, item in pieces:
            starts.append(start)
            yield item

    for number, found in enumerate(cluster.stream(apply, items(), shared)):
        yield starts[number], found


def _pieces_here(rows: Any, batch_size: int) -> Iterator[Piece]:
    """Yield batches of rows that this process has, and sends."""
    for start, rows_here in batches_of(rows, batch_size):
        batch = to_array(rows_here.detach().cpu().clone())
        yield start, partial(_item, batch, 0, len(batch))


def _item(batch: object, first: int, stop: int) -> tuple[Any, dict[str, Any]]:
    return (batch, first, stop), {"pure": False}


def _pieces_of_shards(store: DistributedStore, batch_size: int) -> Iterator[Piece]:
    """Yield batches of the shards, which stay on their workers."""
    for number, shard in enumerate(store.shards):
        for first in range(0, len(shard.rows), batch_size):

            def item(shard: Shard = shard, first: int = first, number: int = number) -> Any:
                future = store.cluster.load(shard, number)
                return (future, first, first + batch_size), shard.submit_options()

            yield shard.start + first, item


def _client_of(client: object) -> object:
    """Return `client`, or the current one."""
    if client is not None:
        return client
    try:
        return default_client()
    except ValueError as error:
        wanted = "a connected dask.distributed.Client"
        fix = "connect one: the results of its workers are streamed"
        raise ArgumentError("client", "None, and there is no current one", wanted, fix) from error


def _pieces_of_blocks(rows: dask.array.Array, cluster: Cluster, batch_size: int) -> Iterator[Piece]:
    """Yield batches of the blocks of a dask array, each computed when it is its turn."""
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
        got, wanted = f"shape {rows.shape} and dtype {rows.dtype}", "a float array (n,d)"
        raise ArgumentError("features", got, wanted, "pass one row of float32 numbers per point")
    if any(math.isnan(size) for size in rows.shape):
        fix = "call array.compute_chunk_sizes() first"
        raise ArgumentError("features", "an array of unknown size", "known sizes of blocks", fix)
    whole: Any = rows
    blocks = whole.rechunk({1: -1}).to_delayed()[:, 0]

    computed: dict[int, Future[Any]] = {}

    def future(number: int) -> Future[Any]:
        if number not in computed:
            computed.clear()  # workers need not hold a block of which all batches are submitted
            computed[number] = cluster.client.compute(blocks[number])
        return computed[number]

    def pieces() -> Iterator[Piece]:
        start = 0
        for number, size in enumerate(rows.chunks[0]):
            for first in range(0, size, batch_size):
                stop = min(first + batch_size, size)

                def item(number: int = number, first: int = first, stop: int = stop) -> Any:
                    return _item(future(number), first, stop)

                yield start + first, item
            start += size

    return pieces()


@in_standard_modes
def apply(item: tuple[Array, int, int], shared: tuple[Callable[..., Any], object, Any]) -> Any:
    """Return the result of the function for the rows from the first to before the last."""
    (rows, first, stop), (function, reference, options) = item, shared
    return function(reference, to_tensor(rows[first:stop]).to(torch.float64), **options)
