"""Banks on disk, relative to plain files and to memory in the same run. Run: see ``--help``.

Denominators: for a pricing pass, the same float32 product over ``numpy.load(mmap_mode="r")`` with
the minimum of each row; for a projection, the same one onto the bank in memory; for writing,
``numpy.save`` to a new file and fsync. Ratios are medians over rounds in which the two alternate.
All files are in the page cache, except where they are written. Memory is the growth of the peak
of a process that opens the bank and works on it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fsboundary as fsb

ROWS_AT_ONCE = 16384
"""Rows of the mapped file per product."""


def make_points(rows: int, width: int, seed: int) -> torch.Tensor:
    """Return points that look like features after a ReLU."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).relu_()


def seconds_of(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    return both_times(run)[0]


def both_times(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a call takes, and those of the processor, of all threads."""
    start, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - processor


def compare(own: Callable[[], object], other: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Return seconds of both and their ratio, medians over `rounds` in which they alternate."""
    times = [(both_times(other), both_times(own)) for _ in range(rounds)]
    pairs = [(theirs[0], mine[0]) for theirs, mine in times]
    ratios = sorted(mine / theirs for theirs, mine in pairs)
    return {
        "seconds": round(float(np.median([mine for _, mine in pairs])), 3),
        "processor_seconds": round(float(np.median([mine[1] for _, mine in times])), 3),
        "denominator_seconds": round(float(np.median([theirs for theirs, _ in pairs])), 3),
        "denominator_processor_seconds": round(float(np.median([one[1] for one, _ in times])), 3),
        "ratio": round(float(np.median(ratios)), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def mapped_pass(path: Path, directions: torch.Tensor) -> None:
    """Price all rows of a memory-mapped file."""
    points, rows = np.load(path, mmap_mode="r"), directions.numpy()
    for first in range(0, len(points), ROWS_AT_ONCE):
        (rows @ points[first : first + ROWS_AT_ONCE].T).min(axis=1)


def plain_save(path: Path, points: torch.Tensor) -> None:
    """Write a new file and wait for the disk."""
    with path.open("wb") as file:
        np.save(file, points.numpy())
        file.flush()
        os.fsync(file.fileno())


def writing(points: torch.Tensor, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the comparison of saving, and of building from a loader, with a plain file."""
    bank, paths = fsb.FeatureBank(points), (folder / f"written{i}" for i in range(10**6))
    bank.select(torch.arange(2)).save(next(paths))  # loads what the first call needs
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(points.shape[1], 10)).eval()
    batches = points.split(256)
    space = fsb.FeatureSpace(model)
    space.bank(batches[:2], next(paths))

    def plain() -> None:
        plain_save(next(paths), points)

    found = {"save": compare(lambda: bank.save(next(paths)), plain, rounds)}
    in_memory = seconds_of(lambda: space.bank(batches))
    found["loader"] = compare(lambda: space.bank(batches, next(paths)), plain, rounds)
    found["loader"]["of_these_in_memory_seconds"] = round(in_memory, 3)
    megabytes = points.numel() * points.element_size() / 1e6
    for one in found.values():
        one["megabytes_per_second"] = round(megabytes / one["seconds"])
    return found


def projection(path: Path, points: torch.Tensor, queries: int, rounds: int) -> dict[str, Any]:
    """Return the comparison of a projection on disk with that in memory, each on a new bank."""
    targets = 0.6 * make_points(queries, points.shape[1], seed=1)
    answers = {}

    def on_disk() -> None:
        answers["disk"] = fsb.hull_projection(fsb.FeatureBank.open(path), targets)

    memory = [fsb.FeatureBank(points) for _ in range(rounds)]  # a state is prepared once per bank

    def in_memory() -> None:
        answers["memory"] = fsb.hull_projection(memory.pop(), targets)

    found = compare(on_disk, in_memory, rounds)
    difference = (answers["disk"].distance - answers["memory"].distance).abs().max()
    found["certified"] = int(answers["disk"].ok.sum())
    return found | {"queries": queries, "largest_difference": float(difference)}


def grown_mib(path: Path, queries: int) -> dict[str, int]:
    """Return how much the peak memory of a process grows after opening a bank, in MiB."""

    def peak() -> int:
        # ru_maxrss would include the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    width = fsb.FeatureBank.open(path).num_features
    fsb.hull_projection(fsb.FeatureBank(make_points(50, width, 2)), make_points(2, width, 3))
    bank, before = fsb.FeatureBank.open(path), peak()
    bank.price(make_points(200, width, 1), 8)
    priced = peak()
    fsb.hull_projection(bank, 0.6 * make_points(queries, width, seed=1))
    return {"pricing": priced - before, "projection": peak() - before}


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--memory", type=Path, help="only the memory that this bank takes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        print(json.dumps(grown_mib(args.memory, args.queries)))
        return
    points = make_points(args.rows, args.width, seed=0)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        plain_save(folder / "points.npy", points)
        fsb.FeatureBank(points).save(folder / "bank")
        bank = fsb.FeatureBank.open(folder / "bank")
        first = seconds_of(lambda: bank.price(points[:200], 8))
        row: dict[str, Any] = {"points": list(points.shape), "threads": torch.get_num_threads()}
        row["pricing"] = {"first_pass_seconds_of_200": round(first, 3)}
        for count in (20, 200, 400):
            directions = torch.randn(count, args.width, generator=torch.Generator().manual_seed(4))
            row["pricing"][f"{count} directions"] = compare(
                lambda directions=directions: bank.price(directions, 8),  # type: ignore[misc] # bound now
                lambda directions=directions: mapped_pass(folder / "points.npy", directions),  # type: ignore[misc] # as above
                args.rounds,
            )
        row["projection"] = projection(
            folder / "bank", points, args.queries, max(1, args.rounds // 2)
        )
        command = [sys.executable, __file__, "--memory", str(folder / "bank")]
        options = ["--queries", str(args.queries), "--threads", str(args.threads)]
        process = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        row["memory_above_open_bank_mib"] = json.loads(process.stdout)
        row["writing"] = writing(points, folder, max(1, args.rounds // 2))
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
