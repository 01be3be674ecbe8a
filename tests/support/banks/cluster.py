"""Dask clusters of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster


@contextmanager
def start_cluster(count: int, threads: int, scratch: Path) -> Iterator[tuple[LocalCluster, Client]]:
    """Start `count` workers in this process, without a dashboard and on free ports."""
    with (
        dask.config.set({"temporary-directory": str(scratch)}),
        LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            processes=False,
            memory_limit=None,  # a worker must not pause because others fill the memory
            dashboard_address="127.0.0.1:0",
        ) as local,
        Client(local) as connected,
    ):
        yield local, connected
