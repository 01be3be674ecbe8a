"""Times of large jobs by numbers of nodes, computed from rates that are measured here, one thread.

The job: as many features as ImageNet has training images (1,281,167 x 2,048, float32) as a bank,
and 50,000 queries with 1,000 classes. Measured are processor seconds of one thread: a pricing pass
over a bank on disk, a projection onto it, flip points and guaranteed balls, and writing. The points
are 128 random directions through a ReLU, with noise. A projection is split into pricing, which is
proportional to the number of rows, and the rest, which is taken not to depend on it; so is the
number of directions priced per query. A job takes the work divided by the number of threads:
nothing is measured on more than one node, and neither the network nor a first read of the disk is
counted. Prints the rates as JSON, then the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fsboundary as fsb

ROWS, WIDTH, CLASSES, QUERIES, RANK = 1_281_167, 2048, 1000, 50_000, 128
THREADS = 32
"""Threads per node in the table."""


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Return normally distributed float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seconds_of(run: Callable[[], object]) -> float:
    """Return the processor seconds that a call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(rows: int, queries: int) -> dict[str, float]:
    """Return the rates, from a bank of `rows` rows and as many `queries`."""
    mixing = normal(RANK, WIDTH, seed=4) / RANK**0.5

    def features(count: int, seed: int) -> torch.Tensor:
        noise = 0.1 * normal(count, WIDTH, seed=seed + 1)
        return (normal(count, RANK, seed=seed) @ mixing + noise).relu_()

    points = features(rows, 10)
    head = fsb.LinearHead(
        normal(CLASSES, WIDTH, seed=1), normal(CLASSES, seed=2), fsb.Domain.nonnegative()
    )
    targets = features(queries, 20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank"
        writing = seconds_of(lambda: fsb.FeatureBank(points).save(path))
        bank = fsb.FeatureBank.open(path)
        bank.price(targets, 8)  # verifies the chunks for the first time
        pricing = min(seconds_of(lambda: bank.price(targets, 8)) for _ in range(3))
        priced, in_pricing = [0], [0.0]

        def price(directions: torch.Tensor, *options: Any) -> Any:
            priced[0] += len(directions)
            start = time.process_time()
            try:
                return real(directions, *options)
            finally:
                in_pricing[0] += time.process_time() - start

        store: Any = bank._store
        real, store.price = store.price, price
        projection = seconds_of(lambda: fsb.hull_projection(bank, targets).raise_for_status())
    few = targets[:32]
    fsb.flip_points(head, few[:2])  # loads what the first call needs
    return {
        "rows priced for one query, per second": rows * queries / pricing,
        "directions priced per projection": priced[0] / queries,
        "rows priced for one direction, per second, in a projection": rows
        * priced[0]
        / in_pricing[0],
        "other seconds per projection": (projection - in_pricing[0]) / queries,
        "flip points (nearest) per second": len(few)
        / seconds_of(lambda: fsb.flip_points(head, few)),
        "guaranteed balls per second": queries
        / seconds_of(lambda: fsb.guaranteed_balls(head, targets)),
        "bytes written per second": points.numel() * 4 / writing,
    }


def hours(seconds: float) -> str:
    """Return a time as text."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    """Print the rates and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 4, 16, 64])
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure(args.rows, args.queries)
    print(json.dumps({name: float(f"{rate:.3g}") for name, rate in rates.items()}, indent=1))
    priced = ROWS * QUERIES / rates["rows priced for one query, per second"]
    projected = ROWS * QUERIES * rates["directions priced per projection"]
    projected /= rates["rows priced for one direction, per second, in a projection"]
    projected += QUERIES * rates["other seconds per projection"]
    work = {
        f"one pricing pass for {QUERIES:,} queries": priced,
        f"hull projections of {QUERIES:,} queries": projected,
        f"nearest flip points of {QUERIES:,} rows": QUERIES
        / rates["flip points (nearest) per second"],
        f"guaranteed balls of all {ROWS:,} rows": ROWS / rates["guaranteed balls per second"],
    }
    print("| computed | " + " | ".join(f"{n} nodes" for n in args.nodes) + " |")
    print("|---" * (len(args.nodes) + 1) + "|")
    for name, seconds in work.items():
        cells = [hours(seconds / (nodes * THREADS)) for nodes in args.nodes]
        print(f"| {name} | " + " | ".join(cells) + " |")
    written = ROWS * WIDTH * 4 / rates["bytes written per second"]
    print(
        f"| writing the bank, one process | {hours(written)}"
        + " | as before" * (len(args.nodes) - 1)
        + " |"
    )


if __name__ == "__main__":
    main()
