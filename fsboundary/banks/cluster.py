"""Questions to the workers of a dask cluster that outlive the death of a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, final

import dask
from distributed import Client, Future, KilledWorker

from fsboundary.banks import workers
from fsboundary.banks.shards import Shard
from fsboundary.banks.workers import Array
from fsboundary.core.errors import DataError, FsboundaryError

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
