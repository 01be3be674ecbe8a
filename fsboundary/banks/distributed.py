"""Rows on the workers of a dask cluster, never gathered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce
from typing import final

import torch
from distributed import Client
from torch import Tensor

from fsboundary.banks import workers
from fsboundary.banks.cluster import Cluster, Shard, cut
from fsboundary.banks.store import Store, joined, merged
from fsboundary.core.protocols import Moments


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
