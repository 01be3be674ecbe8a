"""Shards of a bank as the client sees them: rows that a worker holds, and how to restore them."""

from __future__ import annotations

from typing import Any, final

import torch
from distributed import Client, Future
from torch import Tensor

from fsboundary.banks import workers
from fsboundary.banks.disk import ZarrStore
from fsboundary.banks.store import Store

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
