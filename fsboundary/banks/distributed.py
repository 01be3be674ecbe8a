"""Shards of a bank as the client sees them: rows that a worker holds, and how to restore them.

Questions to the workers of a dask cluster that outlive the death of a worker.

Rows on the workers of a dask cluster, never gathered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial, reduce
from typing import Any, final

import dask
import torch
from distributed import Client, Future, KilledWorker
from torch import Tensor

from fsboundary.banks import workers
from fsboundary.banks.store import Store, joined, merged
from fsboundary.banks.workers import Array
from fsboundary.banks.zarr_store import ZarrStore
from fsboundary.core.errors import DataError, FsboundaryError
from fsboundary.core.protocols import Moments

_NUMBERS = 2**25
"""Numbers of a shard at most, 256 MiB of float64: what a worker can do without."""

_GONE = ("cancelled", "lost", "error")
"""States of a future whose value dask does not have and will not compute again."""


@final
class Shard:
    """Consecutive rows of a bank, from `start` on.

    Parameters
    ----------
    start : int
    rows : Tensor (c,)
        Where these rows are in the source, ascending.
    source : Store
        On the client: in memory, or on a disk that the workers share. The shard is made from it,
        and made again when it was lost with its worker.
    """

    def __init__(self, start: int, rows: Tensor, source: Store) -> None:
        self.start, self.rows, self.source = start, rows, source
        self.worker = ""
        self._future: Future[Any] | None = None

    @property
    def stop(self) -> int:
        """One more than the last row."""
        return self.start + len(self.rows)

    def where(self) -> dict[str, Any]:
        """Return how a task is submitted that belongs on the worker of this shard."""
        return {"workers": [self.worker], "allow_other_workers": True, "pure": False}

    def part(self, start: int, places: Tensor, client: Client) -> Shard:
        """Return the shard of a subset: the rows at `places`, which stay on their worker."""
        shard = Shard(start, self.rows[places], self.source)
        if self._is_held():
            shard.worker = self.worker
            shard._future = client.submit(
                workers.picked, self._future, places.numpy(), **shard.where()
            )
        return shard

    def held(self, client: Client, worker: str, timeout: float) -> Future[Any]:
        """Return the rows on a worker: on `worker`, if they are nowhere yet or were lost."""
        if self._future is None or not self._is_held():
            self.worker = worker
            if isinstance(self.source, ZarrStore):  # dask reads it again where a worker dies
                place = self.source.place(self.rows)
                self._future = client.submit(workers.read, place, **self.where())
            else:
                rows = self.source.subset(self.rows).features().cpu().numpy()
                self._future = client.scatter(rows, workers=[worker], hash=False, timeout=timeout)
        return self._future

    def _is_held(self) -> bool:
        return self._future is not None and self._future.status not in _GONE


def cut(source: Store, count: int) -> list[Shard]:
    """Return all rows of `source` in at least `count` shards, as far as there are rows."""
    n = len(source)
    wanted = min(n, max(count, -(-n * source.num_features // _NUMBERS)))
    pieces = torch.arange(n).tensor_split(wanted)
    return [Shard(int(rows[0]), rows, source) for rows in pieces]


PATIENCE = 30.0
"""Seconds without any worker after which a question fails. A killed worker that its nanny starts
again is back in a few."""

_TICK = 1.0
"""Seconds between two looks at whether there are workers."""

_ATTEMPTS = 10
"""How often a question is sent before the cluster is called unusable."""

_WARNING = "distributed.admin.large-graph-warning-threshold"
"""A size of what is sent, above which dask warns; many wide directions are as large."""

_LOGS = "The logs of the workers say why; most often memory ran out"


@final
class Cluster:
    """The workers behind a client.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def workers(self) -> dict[str, int]:
        """Return the number of threads of each worker, by address; wait for the first.

        Raises
        ------
        DataError
            There is no worker, or the client is closed or cut off.
        """
        if self.client.status != "running":
            raise DataError(
                f"the client is {self.client.status}. Connect one, then distribute the bank again"
            )
        deadline = time.monotonic() + PATIENCE
        while not (found := dict(self.client.nthreads())):
            if time.monotonic() > deadline:
                raise DataError(
                    f"the cluster has had no worker for {PATIENCE:g} seconds. Start workers, "
                    "then ask again"
                )
            time.sleep(_TICK / 10)
        return found

    def ask(
        self, question: Callable[..., Any], shards: Sequence[Shard], *shared: Array
    ) -> list[Any]:
        """Return ``question(rows, start, *shared)`` of each shard, from the worker that holds it.

        Raises
        ------
        DataError
            No worker is left, workers die again and again, or one cannot read its shard.
        """
        answers: dict[Shard, Any] = {}
        for _ in range(_ATTEMPTS):
            left = [shard for shard in shards if shard not in answers]
            answers |= self._collect(self._send(question, left, shared))
            if len(answers) == len(shards):
                return [answers[shard] for shard in shards]
        raise DataError(f"workers were lost in each of {_ATTEMPTS} attempts to ask them. {_LOGS}")

    def _send(
        self, question: Callable[..., Any], shards: Sequence[Shard], shared: Sequence[Array]
    ) -> dict[Shard, Future[Any]]:
        """Ask `shards`, or only the first ones where a worker is found to be lost meanwhile."""
        asked: dict[Shard, Future[Any]] = {}
        try:
            addresses = sorted(self.workers())
            # tasks, for dask runs them again where a worker dies; a broadcast would wait for it
            with dask.config.set({_WARNING: "1TiB"}):
                sent = [self.client.submit(workers.same, array, pure=False) for array in shared]
            for number, shard in enumerate(shards):
                rows = shard.held(self.client, addresses[number % len(addresses)], _TICK)
                asked[shard] = self.client.submit(
                    question, rows, shard.start, *sent, **shard.where()
                )
        except (OSError, KeyError):  # no answer, or an address that is no more
            time.sleep(_TICK)  # until the scheduler has noticed
        return asked

    def _collect(self, asked: dict[Shard, Future[Any]]) -> dict[Shard, Any]:
        """Return the answers, less those that were lost with a worker."""
        answers: dict[Shard, Any] = {}
        for shard, future in asked.items():
            with suppress(OSError, CancelledError):
                answers[shard] = self._answer(shard, future)
        return answers

    def _answer(self, shard: Shard, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=_TICK)
            except Exception as error:
                if future.status == "error":
                    raise _explained(shard, error) from error
                if not isinstance(error, TimeoutError):
                    raise
            self.workers()


def _explained(shard: Shard, error: Exception) -> FsboundaryError:
    if isinstance(error, FsboundaryError):
        return error
    rows = f"rows {shard.start} to {shard.stop - 1}"
    if isinstance(error, KilledWorker):
        return DataError(f"workers died again and again while they held {rows}. {_LOGS}")
    return DataError(f"a worker could not answer for {rows}: {error!r}")


def distribute(store: Store, client: Client) -> DistributedStore:
    """Return `store` in shards on the workers, which hold their rows by then."""
    source = store.origin() if isinstance(store, DistributedStore) else store
    cluster = Cluster(client)
    shards = cut(source, sum(cluster.workers().values()))
    cluster.ask(workers.counted, shards)
    labels = source.labels()
    return DistributedStore(
        cluster, shards, source, None if labels is None else labels.cpu(), source.ids().cpu()
    )


@final
class DistributedStore(Store):
    """Shards in order of rows; the client holds labels, ids and the way back to the source.

    Parameters
    ----------
    cluster : Cluster
    shards : list of Shard
        At least one.
    source : Store
        What the shards are made of.
    labels : Tensor (n,) or None
    ids : Tensor (n,)
    """

    def __init__(
        self,
        cluster: Cluster,
        shards: list[Shard],
        source: Store,
        labels: Tensor | None,
        ids: Tensor,
    ) -> None:
        self._cluster, self._shards, self._source = cluster, shards, source
        self._labels, self._ids = labels, ids
        self.info, self.num_features = source.info, source.num_features

    def __len__(self) -> int:
        return len(self._ids)

    def origin(self) -> Store:
        """Return these rows where the shards were made from: on the client."""
        if len(self) == len(self._source):
            return self._source
        return self._source.subset(torch.cat([shard.rows for shard in self._shards]))

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the chunks of the origin: the workers are not asked."""
        return self.origin().chunks()

    def features(self) -> Tensor:
        """Return the features of the origin: the workers are not asked."""
        return self.origin().features()

    def labels(self) -> Tensor | None:
        """Return the labels."""
        return self._labels

    def ids(self) -> Tensor:
        """Return the ids."""
        return self._ids

    def subset(self, rows: Tensor) -> DistributedStore:
        """Return the store of `rows`, which stay on their workers."""
        shards, begin = [], 0
        for shard in self._shards:
            places = rows[(rows >= shard.start) & (rows < shard.stop)] - shard.start
            if len(places):
                shards.append(shard.part(begin, places, self._cluster.client))
                begin += len(places)
        labels = None if self._labels is None else self._labels[rows]
        return DistributedStore(self._cluster, shards, self._source, labels, self._ids[rows])

    def price(self, directions: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest of the best that each worker finds; ties by the lowest row."""
        shared = [directions] if exclude is None else [directions, exclude]
        answers = self._cluster.ask(
            partial(workers.priced, k=k), self._shards, *(one.cpu().numpy() for one in shared)
        )
        values = directions.new_full((len(directions), k), torch.inf)
        indices = torch.full_like(values, -1, dtype=torch.int64)
        for answer in answers:
            best, rows = (part.to(values.device) for part in answer)
            values, indices = merged(values, indices, best, rows)
        values[~torch.isfinite(directions).all(dim=1)] = torch.nan
        return values, indices

    def take(self, rows: Tensor) -> Tensor:
        """Return the features at `rows`, in float64, on the CPU; each travels once."""
        wanted, back = rows.cpu().unique(return_inverse=True)
        shards = [s for s in self._shards if bool(((wanted >= s.start) & (wanted < s.stop)).any())]
        answers = self._cluster.ask(workers.taken, shards, wanted.numpy())
        # both the rows wanted and the shards are in ascending order
        points = [torch.empty(0, self.num_features), *answers]
        return torch.cat(points).to(torch.float64)[back]

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the range of the ranges that the workers find."""
        lower, upper = zip(*self._cluster.ask(workers.ranged, self._shards), strict=True)
        return torch.stack(lower).amin(dim=0), torch.stack(upper).amax(dim=0)

    def moments(self) -> Moments:
        """Return the moments that the workers find, joined."""
        found: list[Moments] = self._cluster.ask(workers.measured, self._shards)
        return reduce(joined, found)

    def digests(self) -> Tensor:
        """Return the digests that the workers compute."""
        return torch.cat(self._cluster.ask(workers.digested, self._shards))
