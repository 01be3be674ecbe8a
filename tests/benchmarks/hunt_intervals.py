"""Search for false intervals: random programs of operations, run on inputs of all sizes.

Each program runs once under the prover and then on seven inputs without it. Exits with 1 if a
number leaves the interval that the first pass proved.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.models.interval_programs import Outside, attack

FIRST_SEED = 1000
"""The tests use smaller seeds."""

REPORT_EVERY = 5000


def main() -> None:
    """Run the hunt and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first program")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, num_proved, num_false = time.perf_counter(), 0, 0
    for number in range(args.programs):
        try:
            num_proved += attack(args.first + number)
        except Outside as error:
            num_false += 1
            print(f"FALSE {error}", flush=True)
        if (number + 1) % REPORT_EVERY == 0:
            print(f"{number + 1} programs, {num_proved} intervals, {num_false} false", flush=True)
    minutes = (time.perf_counter() - start) / 60
    counts = f"{num_proved} intervals at their ends, {num_false} false"
    print(f"{args.programs} programs in {minutes:.1f} minutes: {counts}")
    sys.exit(1 if num_false else 0)


if __name__ == "__main__":
    main()
