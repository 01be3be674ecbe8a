"""Processor time of two threads of torch relative to one, on free and on busy cores.

Run ``python tests/benchmarks/bench_threads.py``. Every function is timed in two processes, one in
which torch has one thread and one in which it has as many as there are cores, first with nothing
else running (as far as this program knows) and then beside as many busy processes as there are
cores. Set no ``OMP_NUM_THREADS`` and no ``OMP_WAIT_POLICY``: the defaults are what users have. The
ratios are those of the median of the rounds. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import fsboundary as fsb

LIMIT = 1.5


def functions() -> dict[str, Callable[[], Any]]:
    """Return the calls that are timed."""
    g = torch.Generator().manual_seed(0)
    calls: dict[str, Callable[[], Any]] = {}
    for classes, width, rows in ((10, 64, 2000), (300, 512, 4)):
        head = fsb.LinearHead(
            torch.randn(classes, width, generator=g) / width**0.5,
            torch.randn(classes, generator=g) / 10,
            fsb.Domain.nonnegative(),
        )
        z = torch.randn(rows, width, generator=g).abs()
        size = f"K={classes}, d={width}"

        def add(name: str, call: Callable[..., Any], *args: Any, size: str = size) -> None:
            calls[f"{name} ({size})"] = lambda: call(*args)

        add("flip_points, all", fsb.flip_points, head, z, "all")
        add("flip_points, nearest", fsb.flip_points, head, z)
        add("region_distances", fsb.region_distances, head, z)
        add("tie_points", fsb.tie_points, head, z, torch.tensor([0, 1, 2]))
        add("guaranteed_balls", fsb.guaranteed_balls, head, z)
        add("guaranteed_boxes", fsb.guaranteed_boxes, head, z[:200])
        add("class_path", fsb.class_path, head, z, z.flip(0))
    bank = fsb.FeatureBank(torch.randn(20_000, 64, generator=g))
    queries = 1.2 * torch.randn(300, 64, generator=g)
    calls["hull_projection (20,000 x 64)"] = lambda: fsb.hull_projection(bank, queries)
    return calls


def time_all(threads: int, rounds: int) -> None:
    """Print the median processor and wall time of each function as JSON."""
    if threads:
        torch.set_num_threads(threads)
    times = {}
    for name, call in functions().items():
        call()
        measured = []
        for _ in range(rounds):
            start = time.process_time(), time.perf_counter()
            call()
            measured.append((time.process_time() - start[0], time.perf_counter() - start[1]))
        times[name] = [statistics.median(column) for column in zip(*measured, strict=True)]
    print(json.dumps(times))


def spin() -> None:
    """Keep one core busy."""
    while True:
        pass


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Run `count` busy processes."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for process in others:
        process.start()
    try:
        yield
    finally:
        for process in others:
            process.kill()


def measure(threads: int, rounds: int) -> dict[str, list[float]]:
    """Return processor and wall time by function, from a new process."""
    command = [sys.executable, __file__, "--child", str(threads), "--rounds", str(rounds)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=int, help="time with that many threads, 0 for torch's own")
    arguments = parser.parse_args()
    if arguments.child is not None:
        time_all(arguments.child, arguments.rounds)
        return
    cores, results = os.cpu_count() or 1, {}
    for kind, others in (("free", 0), ("busy", cores)):
        with busy_cores(others):
            results[kind] = [measure(threads, arguments.rounds) for threads in (1, 0)]
    print(f"{cores} cores; torch's default threads relative to one; at most {LIMIT} on busy cores")
    header = ("one thread, s", "free: CPU", "wall", "busy: CPU", "wall")
    print(f"{'function':38}" + "".join(f"{text:>15}" for text in header))
    table = {}
    for name, (seconds, _) in results["free"][0].items():
        ratios = [
            several[name][clock] / one[name][clock]
            for one, several in results.values()
            for clock in (0, 1)
        ]
        table[name] = ratios
        print(f"{name:38}{seconds:15.3f}" + "".join(f"{ratio:15.2f}" for ratio in ratios))
    worst = max(ratios[2] for ratios in table.values())
    print(f"largest ratio of processor time on busy cores: {worst:.2f}")
    print(json.dumps({"benchmark": "threads", "cores": cores, "limit": LIMIT, "ratios": table}))


if __name__ == "__main__":
    main()
