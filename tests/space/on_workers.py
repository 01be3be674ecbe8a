"""Script that extracts on three processes, one of which is killed: python on_workers.py FOLDER.

It prints a JSON report: how many workers died, how many there are at the end, and whether the files
of the bank are those that one process writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import torch
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from fsboundary.banks.disk import layout
from fsboundary.space import worker_batches
from support.banks.small import CHUNK, content, loader, space

FATAL_BATCH = 40
"""Number of the batch before which a worker is killed."""

COPIES = 12
"""Number of times that the loader's batches are used, so that all workers get some."""


def main(folder: Path) -> None:
    """Print the report."""
    torch.set_num_threads(1)
    layout._ROWS = CHUNK
    os.fsync = lambda _: None  # SIGKILL loses nothing that was written
    settings = {
        "temporary-directory": str(folder / "scratch"),
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    batches = loader() * COPIES
    space().bank(batches, folder / "one")
    with dask.config.set(settings):
        # torch is imported once instead of by each worker and each replacement of a killed one
        get_mp_context().set_forkserver_preload(["__main__", "fsboundary.space.worker_batches"])
        with (
            LocalCluster(
                n_workers=3,
                threads_per_worker=1,
                memory_limit=None,  # a worker must not pause because others fill the memory
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster) as client,
        ):
            report = build(client, batches, folder / "three")
    report["same"] = content(folder / "one") == content(folder / "three")
    print(json.dumps(report))


def build(client: Client, batches: list[Any], path: Path) -> dict[str, Any]:
    """Return how many workers died while they built the bank, and how many there are."""
    processes = client.run(os.getpid)
    real, count, killed = worker_batches.WorkerSource.features, 0, set[str]()

    def features(self: worker_batches.WorkerSource, batch: Any) -> torch.Tensor:
        nonlocal count
        if count == FATAL_BATCH:
            worker = next(iter(processes))
            os.kill(processes[worker], signal.SIGKILL)
            killed.add(worker)
        count += 1
        return real(self, batch)

    with mock.patch.object(worker_batches.WorkerSource, "features", features):
        space().bank(batches, path, client=client)
    lost = killed - set(client.nthreads())
    return {"killed": len(lost), "workers": len(client.nthreads())}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
