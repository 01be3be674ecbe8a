"""Partitions of random heads: time, memory, linear programs, and undecided pairs.

Heads have normal weights and biases and are studied in the unit box. Each size is measured in its
own process; memory is the peak of that process above its use before. ``programs`` is the number of
linear programs; ``witnessed`` and ``undecided`` are fractions of all pairs of classes. Time depends
on the machine and is also given in units of one linear program of a region of the same head. Prints
one JSON object. With ``--folder`` finished programs are stored, so that an interrupted run
resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import fsboundary as fsb
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.largest_balls import largest_region_ball

SIZES = [(k, d) for k in (10, 100, 1000) for d in (64, 512)]
TINY = [(5, 4), (220, 4)]


def memory_mib(field: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(k: int, d: int, n_jobs: int, resume: str | None) -> dict[str, Any]:
    """Return the figures of one size."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.randn(k, generator=g, dtype=torch.float64))
    box = fsb.Domain.box(torch.zeros(d), torch.ones(d))
    space = Arrangement.of(head, *(limit.numpy() for limit in box.limits(weight)))
    largest_region_ball(space, 0)
    start = time.process_time()
    largest_region_ball(space, 1)
    unit, before = time.process_time() - start, memory_mib("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    found = fsb.partition(head, box, n_jobs=n_jobs, resume=resume)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    pairs = k * (k - 1) / 2
    return {
        "classes": k,
        "features": d,
        "seconds": round(seconds, 2),
        "cpu_in_programs_of_a_region": round(cpu / unit, 1) if n_jobs == 1 else None,
        "peak_mib": round(memory_mib("VmHWM") - before),
        "programs": found.num_programs,
        "nonempty": int(found.nonempty.sum()),
        "facets": len(found.facet_pairs) / pairs,
        "witnessed": found.fraction_witnessed,
        "undecided": found.fraction_undecided,
        "largest_facet_upper": float(found.facet_upper[found.facet_upper.isfinite()].max()),
    }


def main() -> None:
    """Measure every size in its own process and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="folder of finished programs")
    parser.add_argument("--size", type=int, nargs=2, metavar=("K", "d"), help="this size only")
    args = parser.parse_args()
    if args.size:
        k, d = args.size
        file = None if args.folder is None else str(args.folder / f"partition-{k}-{d}.jsonl")
        print(json.dumps(measure(k, d, args.jobs, file)))
        return
    options = ["--jobs", str(args.jobs)]
    options += [] if args.folder is None else ["--folder", str(args.folder)]
    rows = []
    for k, d in TINY if args.tiny else SIZES:
        command = [sys.executable, __file__, "--size", str(k), str(d), *options]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    print(json.dumps({"jobs": args.jobs, "sizes": rows}, indent=1))


if __name__ == "__main__":
    main()
