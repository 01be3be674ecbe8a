"""Hulls on a cluster of three processes, of which one is killed: python on_cluster.py FOLDER.

FOLDER holds a labelled bank `large`, larger than what this process, the client, may grow by, and
takes all that is written. Printed as JSON: how the answers differ from those in memory, where the
rows lie, and how far the client grew.
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
from fsboundary.banks.distributed import Cluster
from support.banks.oracle import normal

QUESTION = 4
"""At which a worker is killed: rows are measured, taken, then priced time and again."""


def main(folder: Path) -> None:
    """Print the report."""
    torch.set_num_threads(1)
    settings = {
        "temporary-directory": str(folder / "scratch"),
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with dask.config.set(settings):
        # torch is imported once, and not by each worker and by each that follows a killed one
        get_mp_context().set_forkserver_preload(["__main__", "fsboundary.banks.workers"])
        report = answers(folder)
    print(json.dumps(report))


def answers(folder: Path) -> dict[str, Any]:
    """Return the report, from a cluster of its own."""
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            memory_limit=None,  # a worker is not to pause because others fill the machine
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        points = fsb.FeatureBank(normal(3000, 12), torch.arange(3000) % 3)
        fsb.hull_projection(points.distribute(client), normal(2, 12))  # loads what it needs
        report = {"large": streamed(folder / "large", client)}
        return report | compared(points, folder / "bank", client)


def compared(points: fsb.FeatureBank, path: Path, client: Client) -> dict[str, Any]:
    """Return how the answers of two banks differ from those in memory where a worker dies.

    It dies while it answers for rows that were sent to it; rows that it read itself die with it.
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
    """Return how many rows failed, how many supports differ, and how far distances do."""
    return {
        "failed": int((got.status != fsb.Status.CONVERGED).sum()),
        "supports": int((got.support != want.support).sum()),
        "distances": float((got.distance - want.distance).abs().max()),
    }


@contextmanager
def killed_worker(client: Client) -> Iterator[list[str]]:
    """Kill a worker that holds a shard when it has just been asked QUESTION; yield its address."""
    asked, send, killed = 0, Cluster._send, list[str]()
    processes = client.run(os.getpid)

    def sent(self: Cluster, *arguments: Any) -> Any:
        nonlocal asked
        futures = send(self, *arguments)
        asked += 1
        if asked == QUESTION:
            killed.append(list(futures)[-1].worker)
            os.kill(processes[killed[0]], signal.SIGKILL)
        return futures

    with mock.patch.object(Cluster, "_send", sent):
        yield killed


def streamed(path: Path, client: Client) -> dict[str, Any]:
    """Return what a bank asks of the memory of each worker, in rows, and of the client, in MiB."""
    before = memory("VmRSS")
    bank = fsb.FeatureBank.open(path).distribute(client)
    bank.range()
    queries = normal(4, bank.num_features, seed=1)
    found = fsb.hull_projection(bank, queries, leave_out=torch.tensor([0, 1, -1, -1]))
    return {
        "rows": len(bank),
        "held": sorted(client.run(rows_held, bank.num_features).values()),
        "failed": int((found.status != fsb.Status.CONVERGED).sum()),
        "grown": memory("VmHWM") - before,
    }


def rows_held(width: int, dask_worker: Worker) -> int:
    """Return how many rows of `width` numbers lie on a worker."""
    arrays = [value for value in dask_worker.data.values() if isinstance(value, np.ndarray)]
    return sum(len(array) for array in arrays if array.shape[1:] == (width,))


def memory(kind: str) -> float:
    """Return MiB of this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
