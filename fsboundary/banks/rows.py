"""Functions of rows, computed a batch of rows at a time, here or on the workers of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fsboundary.banks.bank import FeatureBank
from fsboundary.banks.checks import imports_dask
from fsboundary.banks.store import Store, batches_of
from fsboundary.core.checks import check_float_tensor, check_instance, check_integer
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import TensorOrArray

if TYPE_CHECKING:
    from dask.array import Array
    from distributed import Client

_R = TypeVar("_R")


def map_rows(
    function: Callable[..., _R],
    reference: object,
    features: TensorOrArray | FeatureBatch | FeatureBank | Array,
    *,
    client: Client | None = None,
    batch_size: int = 4096,
    **options: Any,
) -> Iterator[tuple[int, _R]]:
    """Return an iterator over the results of a function for batches of rows, in their order.

    Memory holds the results of a few batches, whatever the number of rows. Each result is that of
    ``function(reference, batch)``, so its certificates are those of that call.

    Parameters
    ----------
    function : callable
        Function of a reference and features, row by row, such as :func:`fsboundary.flip_points`,
        :func:`fsboundary.guaranteed_balls` or :func:`fsboundary.hull_projection`; or any other that
        workers can import, for example one that keeps only a field of such a result.
    reference : LinearHead or FeatureBank
        First argument of the function. A bank is sent to workers as it is: on disk by its path.
    features : Tensor, array or dask array (n, d), FeatureBatch or FeatureBank
        Rows. Those of a distributed bank or a dask array stay on their workers.
    client : dask.distributed.Client, optional
        Cluster whose workers compute; that of a distributed bank, or the current one for a dask
        array, is used without it. Workers that die are replaced by others.
    batch_size : int
        Largest number of rows per call of the function.
    **options : object
        Further arguments of the function, the same for all rows.

    Returns
    -------
    iterator of tuple of int and object
        The index of the first row of each batch, and the result; results of workers are on the CPU.

    Raises
    ------
    ArgumentError
        Not a function, rows of another kind or of unknown number, or dask is not installed.
    DataError
        As for a distributed bank, raised by the iterator.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    >>> for start, balls in fsb.map_rows(fsb.guaranteed_balls, head, rows, batch_size=2):
    ...     print(start, balls.radius.round(decimals=3).tolist())
    0 [1.414, 0.707]
    2 [1.414]
    """
    kind: Any = Callable
    fix = "pass the function itself, such as fsboundary.flip_points"
    check_instance("function", function, kind, "a function", fix)
    check_integer("batch_size", batch_size)
    rows: Any = features.features if isinstance(features, FeatureBatch) else features
    array = sys.modules.get("dask.array")  # whoever has a dask array has imported it
    on_cluster = client is not None or (array is not None and isinstance(rows, array.Array))
    if isinstance(rows, FeatureBank):
        rows = rows._store
        on_cluster |= type(rows).__name__ == "DistributedStore"
    elif array is None or not isinstance(rows, array.Array):
        fix = "pass one row per point; one row needs [None]"
        rows = check_float_tensor("features", rows, ("n", "d"), fix=fix)
    if not on_cluster:
        return _map_here(function, reference, rows, batch_size, options)
    with imports_dask(client):  # here: others need no dask
        from fsboundary.banks.cluster.rows import map_on_workers
    return map_on_workers(function, reference, rows, client, batch_size, options)


def _map_here(
    function: Callable[..., _R],
    reference: object,
    features: Tensor | Store,
    batch_size: int,
    options: dict[str, Any],
) -> Iterator[tuple[int, _R]]:
    for start, batch in batches_of(features, batch_size):
        # a copy: the memory of a chunk is used again, and a result may contain its rows
        yield start, function(reference, batch.to(torch.float64, copy=True), **options)
