"""Scaling of hull projections with the number of generators and their width. Run: see ``--help``.

Generators are features of augmented real images, queries are features of unseen test images
(see ``augmented_features.py``). Each size is measured in its own process; memory is the peak of
that process above its use with the bank open, before the first query. Times include preparation
and grading; the unit is one pass over the same bank, ``bank.price(queries, 1)`` in float32.
Features are written to a temporary folder, whose banks are deleted as soon as no size needs them,
unless ``--folder`` keeps them; with ``--folder`` an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import fsboundary as fsb

sys.path.insert(0, str(Path(__file__).parent))

from augmented_features import images_of, space_of, write_bank

LIMIT = 1.1
"""Limit of the exponent of time in n."""

SIZES = {
    "n": [(10_000, 64, "memory"), (100_000, 64, "memory"), (1_000_000, 64, "memory")],
    "d": [(50_000, d, "memory") for d in (64, 256, 512, 2048)],
    "disk": [(550_000, 2048, "disk")],
}
TINY = {
    "n": [(200, 64, "memory"), (400, 64, "memory"), (800, 64, "memory")],
    "d": [(200, 64, "memory"), (200, 256, "memory")],
    "disk": [(300, 256, "disk")],
}


def memory_mib(field: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def counted(work: Any) -> tuple[Any, float, Counter[str]]:
    """Return the result of `work`, its seconds, and the number of passes over banks."""
    asked: Counter[str] = Counter()
    price, moments = fsb.FeatureBank.price, fsb.FeatureBank.moments

    def counting_price(self: Any, directions: Tensor, k: int, exclude: Any = None) -> Any:
        asked[f"{str(directions.dtype).removeprefix('torch.')} passes"] += 1
        asked["directions priced"] += len(directions)
        return price(self, directions, k, exclude)

    def counting_moments(self: Any) -> Any:
        asked["passes for sizes"] += 1
        return moments(self)

    with (
        mock.patch.object(fsb.FeatureBank, "price", counting_price),
        mock.patch.object(fsb.FeatureBank, "moments", counting_moments),
    ):
        start = time.perf_counter()
        result = work()
        return result, time.perf_counter() - start, asked


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Project the queries onto one bank, once, and return time, passes and memory."""
    queries = space_of(args.width).extract(images_of(args.data)[2][: args.queries].float() / 255)
    stored = fsb.FeatureBank.open(args.bank)
    # the cost of the very first call, which does not depend on the bank
    fsb.hull_projection(fsb.FeatureBank(queries.features[:8]), queries.features)
    if args.where == "memory":
        bank = fsb.FeatureBank(stored.take(torch.arange(args.count)).float())
    else:
        bank = stored
    assert len(bank) == args.count, "a bank on disk is used whole"
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = memory_mib("VmRSS")
    found, seconds, asked = counted(lambda: fsb.hull_projection(bank, queries.features))
    above = memory_mib("VmHWM") - before
    start = time.perf_counter()
    bank.price(queries.features.float(), 1)
    unit = time.perf_counter() - start
    done = found.status == fsb.Status.CONVERGED
    relative = (found.gap / found.distance)[done & (found.membership == -1)]
    return {
        "rows": len(bank),
        "width": bank.num_features,
        "where": args.where,
        "queries": len(found.status),
        "seconds": round(seconds, 3),
        "one_pass_seconds": round(unit, 4),
        "multiple_of_one_pass": round(seconds / unit, 1),
        "converged": int(done.sum()),
        "inside": int((found.membership == 1).sum()),
        "largest_relative_gap": float(relative.max()) if len(relative) else None,
        "passes_a_row": {int(k): int((found.steps == k).sum()) for k in found.steps.unique()},
        "asked": dict(asked),
        "mean_support": round(float((found.support >= 0).sum(dim=1).double().mean()), 1),
        "held_mib": round(before, 1),
        "peak_mib_above": round(above, 1),
        "bank_mib": round(len(bank) * bank.num_features * 4 / 2**20, 1),
        "threads": torch.get_num_threads(),
    }


def in_own_process(args: argparse.Namespace, task: str, **options: object) -> dict[str, Any]:
    """Run this file with `task` and return the JSON that it prints, or what went wrong."""
    command = [sys.executable, __file__, "--task", task, "--queries", str(args.queries)]
    command += [] if args.data is None else ["--data", str(args.data)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * args.minutes)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {args.minutes:g} minutes", **options}
    if done.returncode:
        return {"failed": done.stderr.splitlines()[-1] if done.stderr else "killed", **options}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run(args: argparse.Namespace, sizes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure the sizes, width by width, and delete each bank after its last size."""
    wanted = {size for name in args.sizes for size in sizes[name]}
    banks, rows = [], {}
    for width, where in sorted({(d, where) for _, d, where in wanted}):
        counts = sorted(n for n, d, w in wanted if (d, w) == (width, where))
        path = folder / f"bank-{width}-{where}"
        try:
            made = in_own_process(args, "write", bank=path, count=counts[-1], width=width)
            banks.append(made)
            for n in counts if "failed" not in made else []:
                turns = [
                    in_own_process(args, "project", bank=path, count=n, width=width, where=where)
                    for _ in range(1 if where == "disk" else args.repeats)
                ]
                rows[n, width, where] = _middle(turns)
                print(json.dumps(rows[n, width, where]), file=sys.stderr, flush=True)
        finally:
            if args.folder is None:
                shutil.rmtree(path, ignore_errors=True)
    return {
        "banks": banks,
        "sizes": list(rows.values()),
        **_exponents(rows, {name: sizes[name] for name in args.sizes}),
    }


def _middle(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median time, or one that failed, with all times."""
    failed = [turn for turn in turns if "failed" in turn]
    if failed:
        return failed[0]
    times = [turn["seconds"] for turn in turns]
    middle = turns[times.index(statistics.median_low(times))]
    return {**middle, "seconds_of_all_turns": times}


def _exponents(rows: dict[Any, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the slope of log time against log n, and against log d, in each series."""
    found: dict[str, Any] = {}
    for name, axis in (("n", 0), ("d", 1)):
        series = [size for size in sizes.get(name, []) if "seconds" in rows.get(size, {})]
        if len(series) > 1:
            at = np.log([size[axis] for size in series])
            for key in ("seconds", "one_pass_seconds"):
                slope = np.polyfit(at, np.log([rows[size][key] for size in series]), 1)[0]
                found[f"exponent_of_{key}_in_{name}"] = round(float(slope), 3)
    return found


def main() -> None:
    """Run the sizes, or one task of one size, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3, help="processes per size in memory")
    parser.add_argument("--minutes", type=float, default=15, help="limit of each process")
    parser.add_argument(
        "--folder", type=Path, help="keep the banks here; by default they are deleted"
    )
    parser.add_argument("--tiny", action="store_true", help="a few rows, as a quick check")
    own = parser.add_argument_group("arguments of the processes")
    own.add_argument("--task", choices=("write", "project"))
    own.add_argument("--bank", type=Path)
    own.add_argument("--count", type=int)
    own.add_argument("--width", type=int)
    own.add_argument("--where", choices=("memory", "disk"))
    args = parser.parse_args()
    if args.task == "write":
        print(json.dumps(write_bank(args.bank, args.count, args.width, args.data)))
        return
    if args.task == "project":
        print(json.dumps(measure(args)))
        return
    folder = args.folder or Path(tempfile.mkdtemp(prefix="hull-scale-"))
    start = time.perf_counter()
    try:
        found = run(args, TINY if args.tiny else SIZES, folder)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    settings = {"minutes": round((time.perf_counter() - start) / 60, 1), "limit_in_n": LIMIT}
    machine = {"torch": torch.__version__, "machine": platform.machine()}
    print(json.dumps({"benchmark": "hull-scale", **settings, **machine, **found}, indent=2))


if __name__ == "__main__":
    main()
