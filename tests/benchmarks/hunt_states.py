"""Search for answers that depend on the past of heads, banks, spaces and plugins.

Random sequences of public calls on shared objects; between the calls, tensors that a user can reach
are written to, objects are copied, pickled and reopened, hostile plugins run, the model is changed
and changed back, and modes and threads change. Every answer must equal that of objects without a
past, bit for bit, except for rounding where two threads computed it. Exits with 1 if any does not.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.state_hunt import Sequence

FIRST_SEED = 1000
"""The tests use smaller seeds."""

REPORT_EVERY = 500


def main() -> None:
    """Run the hunt and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=6, help="steps per sequence")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first sequence")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # rows inside a hull or on a boundary warn of their gradients
    start, total, different = time.perf_counter(), Counter[str](), 0
    right: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for number in range(args.sequences):
        sequence = Sequence(args.first + number, right)
        try:
            sequence.run(args.steps)
        except Exception:  # a call that raises is a fault too, but the search goes on
            past = ", ".join(sequence.done)
            sequence.faults.append(f"RAISED after [{past}]\n{traceback.format_exc()}")
        for fault in sequence.faults:
            print(f"DIFFERENT sequence {args.first + number}: {fault}", flush=True)
        different += bool(sequence.faults)
        total += sequence.counts
        if (number + 1) % REPORT_EVERY == 0:
            print(f"{number + 1} sequences, {different} with differences", flush=True)
    minutes = (time.perf_counter() - start) / 60
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(total.items()))
    print(f"{args.sequences} sequences in {minutes:.1f} minutes: {counts}; {different} differ")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
