"""Banks on the workers of a dask cluster: shards, tasks that survive lost workers, the store.

A shard is a range of rows that one worker holds, together with the source from which it can be
restored. Rows are never gathered on the client.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial, reduce
from typing import Any, TypeAlias, final

import dask
import torch
from distributed import Client, Future, KilledWorker
from torch import Tensor

from fsboundary.banks.cluster import workers
from fsboundary.banks.cluster.workers import Array
from fsboundary.banks.disk.zarr_store import ZarrStore
from fsboundary.banks.store import Store, join_moments, merge_smallest, to_array
from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError
from fsboundary.core.protocols import Moments

_NUMBERS = 2**25
"""Maximal count of numbers in a shard, 256 MiB of float64, which a worker can spare."""

_GONE = ("cancelled", "lost", "error")
"""States of a future whose value dask does not have and will not recompute."""


@final
class Shard:
    """Consecutive rows of a bank, from `start` on.

    Parameters
    ----------
    start : int
        First row in the bank.
    rows : Tensor (c,)
        Indices of these rows in the source, ascending.
    source : Store
        Store on the client, in memory or on a disk that the workers share. The shard is made from
        it, and made again after it was lost with its worker.
    """

    def __init__(self, start: int, rows: Tensor, source: Store) -> None:
        self.start, self.rows, self.source = start, rows, source
        self.worker = ""
        self._future: Future[Any] | None = None

    @property
    def stop(self) -> int:
        """Index after the last row."""
        return self.start + len(self.rows)

    def submit_options(self) -> dict[str, Any]:
        """Return the keyword arguments that submit a task to the worker of this shard."""
        return {"workers": [self.worker], "allow_other_workers": True, "pure": False}

    def subset(self, start: int, indices: Tensor, client: Client) -> Shard:
        """Return the shard of a subset: the rows at `indices`, which stay on their worker."""
        shard = Shard(start, self.rows[indices], self.source)
        if self._is_available():
            shard.worker = self.worker
            shard._future = client.submit(
                workers.select_rows, self._future, indices.numpy(), **shard.submit_options()
            )
        return shard

    def load(self, client: Client, worker: str, timeout: float) -> Future[Any]:
        """Return the rows as a future, loaded on `worker` if no worker holds them or they are lost.

        Parameters
        ----------
        client : Client
            Client of the cluster.
        worker : str
            Address of the worker.
        timeout : float
            Seconds after which sending the rows fails.
        """
        if self._future is None or not self._is_available():
            self.worker = worker
            if isinstance(self.source, ZarrStore):  # dask reads it again if a worker dies
                location = self.source.locate(self.rows)
                self._future = client.submit(workers.read_rows, location, **self.submit_options())
            else:
                rows = to_array(self.source.subset(self.rows).features().cpu())
                self._future = client.scatter(rows, workers=[worker], hash=False, timeout=timeout)
        return self._future

    def _is_available(self) -> bool:
        return self._future is not None and self._future.status not in _GONE


def split_into_shards(source: Store, count: int) -> list[Shard]:
    """Return all rows of `source` in at least `count` shards, if it has that many rows."""
    n = len(source)
    num_shards = min(n, max(count, -(-n * source.num_features // _NUMBERS)))
    pieces = torch.arange(n).tensor_split(num_shards)
    return [Shard(int(rows[0]), rows, source) for rows in pieces]


WORKER_TIMEOUT = 30.0
"""Seconds without any worker after which a task fails. A killed worker that its nanny restarts is
back within a few seconds."""

_TICK = 1.0
"""Seconds between two checks for workers."""

_ATTEMPTS = 10
"""Number of attempts to run a task before the cluster is called unusable."""

_AHEAD = 3
"""Number of tasks per thread that run ahead of the one whose result is needed next."""

_WARNING = "distributed.admin.large-graph-warning-threshold"
"""Size of a task above which dask warns; many wide directions are as large."""

_LOGS = "The logs of the workers say why; most often memory ran out"


# text, because futures of dask before 2025 are no generic class at run time
_Running: TypeAlias = "tuple[int, Any, Future[Any] | None]"
"""Number and item of a task, and its future."""


@final
class Cluster:
    """The workers behind a client.

    Parameters
    ----------
    client : Client
        Connected client.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def workers(self) -> dict[str, int]:
        """Return the number of threads of each worker, by address; wait for the first worker.

        Raises
        ------
        DataError
            There is no worker, or the client is closed or disconnected.
        """
        if self.client.status != "running":
            raise DataError(
                f"the client is {self.client.status}. Connect one, then distribute the bank again"
            )
        deadline = time.monotonic() + WORKER_TIMEOUT
        while not (threads := dict(self.client.nthreads())):
            if time.monotonic() > deadline:
                raise DataError(
                    f"the cluster has had no worker for {WORKER_TIMEOUT:g} seconds. Start workers, "
                    "then try again"
                )
            time.sleep(_TICK / 10)
        return threads

    def map_shards(
        self, task: Callable[..., Any], shards: Sequence[Shard], *shared: Array
    ) -> list[Any]:
        """Return ``task(rows, start, *shared)`` of each shard, run by the worker that holds it.

        Raises
        ------
        DataError
            No worker is left, workers die repeatedly, or one cannot read its shard.
        """
        results: dict[Shard, Any] = {}
        for _ in range(_ATTEMPTS):
            left = [shard for shard in shards if shard not in results]
            results |= self._collect(self._submit(task, left, shared))
            if len(results) == len(shards):
                return [results[shard] for shard in shards]
        raise DataError(f"workers were lost in each of {_ATTEMPTS} attempts to run a task. {_LOGS}")

    def stream(
        self, task: Callable[[Any, Any], Any], items: Iterable[Any], shared: object
    ) -> Iterator[Any]:
        """Yield ``task(item, shared)`` of each item, in order, run by any worker.

        A few tasks per thread of the workers run ahead. Tasks of workers that die run again.

        Parameters
        ----------
        task : callable
            Function that workers can import.
        items : iterable
            Arguments, or functions that return an argument, which may contain futures, and the
            keyword arguments of ``Client.submit``; they are called for each attempt.
        shared : object
            Argument that workers pass on to each other, once per worker.

        Raises
        ------
        DataError
            As :meth:`map_shards`.
        """
        sent = self._send(shared)
        ahead = _AHEAD * sum(self.workers().values())
        running: deque[_Running] = deque()
        try:
            for number, item in enumerate(items):
                running.append((number, item, self._run(task, item, sent)))
                if len(running) > ahead:
                    yield self._next(task, running, sent)
            while running:
                yield self._next(task, running, sent)
        finally:
            with suppress(OSError):
                self.client.cancel([future for *_, future in running if future is not None])

    def _send(self, shared: object) -> Future[Any]:
        """Return a future of `shared`; a task, because dask reruns it if a worker dies."""
        with dask.config.set({_WARNING: "1TiB"}):
            return self.client.submit(workers.identity, shared, pure=False)

    def load(self, shard: Shard, number: int) -> Future[Any]:
        """Return the rows of a shard as a future; `number` chooses a worker if they are lost."""
        addresses = sorted(self.workers())
        return shard.load(self.client, addresses[number % len(addresses)], _TICK)

    def _run(self, task: Callable[..., Any], item: Any, sent: Future[Any]) -> Future[Any] | None:
        """Submit a task; None if a worker is lost meanwhile."""
        with dask.config.set({_WARNING: "1TiB"}), suppress(OSError, KeyError):
            argument, options = item() if callable(item) else (item, {"pure": False})
            return self.client.submit(task, argument, sent, **options)
        return None

    def _next(
        self, task: Callable[[Any, Any], Any], running: deque[_Running], sent: Future[Any]
    ) -> Any:
        """Return the result of the first of `running`, after other attempts if it was lost."""
        number, item, future = running.popleft()
        for _ in range(_ATTEMPTS):
            with suppress(OSError, CancelledError):
                if future is not None:
                    return self._wait_for(f"part {number}", future)
            time.sleep(_TICK)  # until the scheduler has noticed
            future = self._run(task, item, sent)
        raise DataError(f"workers were lost in each of {_ATTEMPTS} attempts to run a task. {_LOGS}")

    def _submit(
        self, task: Callable[..., Any], shards: Sequence[Shard], shared: Sequence[Array]
    ) -> dict[Shard, Future[Any]]:
        """Submit `task` for `shards`, or only for the first ones if a worker is lost meanwhile."""
        futures: dict[Shard, Future[Any]] = {}
        try:
            self.workers()
            sent = [self._send(array) for array in shared]  # a broadcast would wait for the dead
            for number, shard in enumerate(shards):
                rows = self.load(shard, number)
                futures[shard] = self.client.submit(
                    task, rows, shard.start, *sent, **shard.submit_options()
                )
        except (OSError, KeyError):  # no reply, or an address that no longer exists
            time.sleep(_TICK)  # until the scheduler has noticed
        return futures

    def _collect(self, futures: dict[Shard, Future[Any]]) -> dict[Shard, Any]:
        """Return the results, without those that were lost with a worker."""
        results: dict[Shard, Any] = {}
        for shard, future in futures.items():
            with suppress(OSError, CancelledError):
                results[shard] = self._wait_for(f"rows {shard.start} to {shard.stop - 1}", future)
        return results

    def _wait_for(self, what: str, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=_TICK)
            except Exception as error:
                if future.status == "error":
                    raise _describe_failure(what, error) from error
                if not isinstance(error, TimeoutError):
                    raise
            self.workers()


def _describe_failure(what: str, error: Exception) -> FsboundaryError:
    if isinstance(error, FsboundaryError):
        return error
    if isinstance(error, KilledWorker):
        return DataError(f"workers died repeatedly while they held {what}. {_LOGS}")
    return DataError(f"a worker failed on {what}: {error!r}")


def connect(client: object) -> Cluster:
    """Return the cluster of `client`.

    Raises
    ------
    ArgumentError
        `client` is not a client, not connected, or asynchronous.
    """
    wanted, fix = "a connected dask.distributed.Client", "pass dask.distributed.Client(address)"
    found = check_instance("client", client, Client, wanted, fix)
    if found.asynchronous:
        fix = "create it with asynchronous=False, and call this outside its event loop"
        raise ArgumentError("client", "an asynchronous client", wanted, fix)
    if found.status != "running":
        raise ArgumentError("client", f"a client that is {found.status}", wanted, fix)
    return Cluster(found)


def distribute(store: Store, client: object) -> DistributedStore:
    """Return `store` in shards on the workers, after they have loaded their rows."""
    cluster = connect(client)
    source = store.origin() if isinstance(store, DistributedStore) else store
    shards = split_into_shards(source, sum(cluster.workers().values()))
    cluster.map_shards(workers.count_rows, shards)
    labels = source.labels()
    return DistributedStore(
        cluster, shards, source, None if labels is None else labels.cpu(), source.ids().cpu()
    )


@final
class DistributedStore(Store):
    """Shards in the order of rows; the client keeps labels, ids and the source.

    Parameters
    ----------
    cluster : Cluster
        Workers that hold the shards.
    shards : list of Shard
        At least one.
    source : Store
        Store from which the shards are made.
    labels : Tensor (n,) or None
        Class of each row.
    ids : Tensor (n,)
        Id of each row.
    """

    def __init__(
        self,
        cluster: Cluster,
        shards: list[Shard],
        source: Store,
        labels: Tensor | None,
        ids: Tensor,
    ) -> None:
        self.cluster, self.shards, self._source = cluster, shards, source
        self._labels, self._ids = labels, ids
        self.info, self.num_features, self.seal = source.info, source.num_features, source.seal
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self._ids)

    def origin(self) -> Store:
        """Return these rows of the source, on the client."""
        if len(self) == len(self._source):
            return self._source
        return self._source.subset(torch.cat([shard.rows for shard in self.shards]))

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the chunks of the origin, without using the workers."""
        return self.origin().chunks()

    def features(self) -> Tensor:
        """Return the features of the origin, without using the workers."""
        return self.origin().features()

    def labels(self) -> Tensor | None:
        """Return a copy of the labels."""
        return None if self._labels is None else self._labels.clone()

    def ids(self) -> Tensor:
        """Return a copy of the ids."""
        return self._ids.clone()

    def subset(self, rows: Tensor) -> DistributedStore:
        """Return the store of `rows`, which stay on their workers."""
        shards, begin = [], 0
        for shard in self.shards:
            indices = rows[(rows >= shard.start) & (rows < shard.stop)] - shard.start
            if len(indices):
                shards.append(shard.subset(begin, indices, self.cluster.client))
                begin += len(indices)
        labels = None if self._labels is None else self._labels[rows]
        return DistributedStore(self.cluster, shards, self._source, labels, self._ids[rows])

    def price(self, directions: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest of the products that the workers find; ties by the lowest row."""
        shared = [directions] if exclude is None else [directions, exclude]
        results = self.cluster.map_shards(
            partial(workers.price_rows, k=k), self.shards, *(one.cpu().numpy() for one in shared)
        )
        values = directions.new_full((len(directions), k), torch.inf)
        indices = torch.full_like(values, -1, dtype=torch.int64)
        for result in results:
            best, rows = (part.to(values.device) for part in result)
            values, indices = merge_smallest(values, indices, best, rows)
        values[~torch.isfinite(directions).all(dim=1)] = torch.nan
        return values, indices

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows` as float64, on the CPU; each row is sent once."""
        wanted, inverse = rows.cpu().unique(return_inverse=True)
        shards = [s for s in self.shards if bool(((wanted >= s.start) & (wanted < s.stop)).any())]
        results = self.cluster.map_shards(workers.take_rows, shards, wanted.numpy())
        # both the rows wanted and the shards are in ascending order
        points = [torch.empty(0, self.num_features, dtype=torch.float32), *results]
        return torch.cat(points).to(torch.float64)[inverse]

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the range over the ranges that the workers find."""
        ranges = self.cluster.map_shards(workers.coordinate_range, self.shards)
        lower, upper = zip(*ranges, strict=True)
        return torch.stack(lower).amin(dim=0), torch.stack(upper).amax(dim=0)

    def moments(self) -> Moments:
        """Return the joined moments that the workers compute."""
        moments: list[Moments] = self.cluster.map_shards(workers.moments, self.shards)
        return reduce(join_moments, moments)

    def digests(self) -> Tensor:
        """Return the digests that the workers compute."""
        return torch.cat(self.cluster.map_shards(workers.digests, self.shards))
