"""Script for hulls on three processes, one of which is killed: python on_cluster.py FOLDER.

FOLDER contains a labelled bank `large`, larger than the memory growth allowed to this process, the
client; all files are written to FOLDER. The script prints a JSON report: how the results differ
from those in memory, how the rows are distributed, and how much the client grew.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import torch
from distributed import Client, LocalCluster, Worker
from distributed.utils import get_mp_context

import fsboundary as fsb
from fsboundary.banks.cluster.distributed import Cluster
from support.banks.oracle import normal

FATAL_TASK = 4
"""Number of the task at which a worker is killed: moments, rows, then prices repeatedly."""


def main(folder: Path) -> None:
    """Print the report."""
    torch.set_num_threads(1)
    settings = {
        "temporary-directory": str(folder / "scratch"),
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with dask.config.set(settings):
        # torch is imported once instead of by each worker and each replacement of a killed one
        get_mp_context().set_forkserver_preload(["__main__", "fsboundary.banks.cluster.workers"])
        report = measure(folder)
    print(json.dumps(report))


def measure(folder: Path) -> dict[str, Any]:
    """Return the report, from a new cluster."""
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            memory_limit=None,  # a worker must not pause because others fill the memory
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        points = fsb.FeatureBank(normal(3000, 12), torch.arange(3000) % 3)
        fsb.hull_projection(points.distribute(client), normal(2, 12))  # warm-up: loads all modules
        report = {"large": stream_large_bank(folder / "large", client)}
        return report | compare_banks(points, folder / "bank", client)


def compare_banks(points: fsb.FeatureBank, path: Path, client: Client) -> dict[str, Any]:
    """Return how the results of two banks differ from those in memory when a worker dies.

    It dies while it runs a task on rows that were sent to it; rows that it read itself are lost.
    """
    points.save(path)
    sent, read = points.distribute(client), fsb.FeatureBank.open(path).distribute(client)
    queries = 0.7 * normal(12, 12, seed=1)
    with killed_worker(client) as killed:
        differences = {
            f"{kind}, {name}": difference(
                fsb.hull_projection(bank, queries, labels=labels),
                fsb.hull_projection(points, queries, labels=labels),
            )
            for name, labels in {"all": None, "class": torch.full((12,), 1)}.items()
            for kind, bank in {"sent": sent, "read": read}.items()
        }
    lost = set(killed) - set(client.nthreads())
    return {"killed": len(lost), "differences": differences}


def difference(got: fsb.HullProjection, want: fsb.HullProjection) -> dict[str, float]:
    """Return how many rows failed, how many supports differ, and by how much distances do."""
    return {
        "failed": int((got.status != fsb.Status.CONVERGED).sum()),
        "supports": int((got.support != want.support).sum()),
        "distances": float((got.distance - want.distance).abs().max()),
    }


@contextmanager
def killed_worker(client: Client) -> Iterator[list[str]]:
    """Kill a worker that holds a shard just after task FATAL_TASK was sent; yield its address."""
    count, submit, killed = 0, Cluster._submit, list[str]()
    processes = client.run(os.getpid)

    def submit_and_kill(self: Cluster, *arguments: Any) -> Any:
        nonlocal count
        futures = submit(self, *arguments)
        count += 1
        if count == FATAL_TASK:
            killed.append(list(futures)[-1].worker)
            os.kill(processes[killed[0]], signal.SIGKILL)
        return futures

    with mock.patch.object(Cluster, "_submit", submit_and_kill):
        yield killed


def stream_large_bank(path: Path, client: Client) -> dict[str, Any]:
    """Return the memory that a bank needs on each worker, in rows, and on the client, in MiB."""
    before = memory("VmRSS")
    bank = fsb.FeatureBank.open(path).distribute(client)
    bank.range()
    queries = normal(4, bank.num_features, seed=1)
    result = fsb.hull_projection(bank, queries, leave_out=torch.tensor([0, 1, -1, -1]))
    return {
        "rows": len(bank),
        "held": sorted(client.run(rows_held, bank.num_features).values()),
        "failed": int((result.status != fsb.Status.CONVERGED).sum()),
        "grown": memory("VmHWM") - before,
    }


def rows_held(width: int, dask_worker: Worker) -> int:
    """Return how many rows of `width` numbers a worker holds."""
    arrays = [value for value in dask_worker.data.values() if isinstance(value, np.ndarray)]
    return sum(len(array) for array in arrays if array.shape[1:] == (width,))


def memory(kind: str) -> float:
    """Return the memory of this process in MiB: VmRSS now, VmHWM the maximum so far."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
