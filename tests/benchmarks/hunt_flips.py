"""Search for false certificates among 100,000 random and adversarial flip problems.

The families and the checker are those of ``tests/support``: extended precision, exact rational
arithmetic where it decides, and nothing from ``fsboundary.geometry``. The guaranteed balls of every
case are checked and attacked too; with ``--ties`` random classes tie instead, and with
``--labels`` the classes are labels that are decided separately. Exits with 1 if any
certificate is false.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.flips.label_checker import examine_labels
from support.flips.run_family import FAMILIES, draw, examine
from support.flips.tie_checker import examine_ties

FIRST_SEED = 1000
"""The tests use smaller seeds."""


def main() -> None:
    """Run the hunt and print counts by family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--ties", action="store_true", help="tie points instead of flip points")
    parser.add_argument("--labels", action="store_true", help="label flips instead of flip points")
    args = parser.parse_args()
    look = examine_ties if args.ties else examine_labels if args.labels else examine
    start, share = time.perf_counter(), args.problems / len(FAMILIES)
    total: Counter[str] = Counter()
    false = 0
    heads = f"{'problems':>8} {'converged':>9} {'infeasible':>10} {'open':>6} {'false':>5}"
    print(f"{'family':32} {heads}")
    for name in FAMILIES:
        counts: Counter[str] = Counter()
        seed, found = FIRST_SEED, 0
        while _problems(counts) < share:
            case_counts, faults = look(draw(name, seed), seed)
            counts += case_counts
            found += len(faults)
            for fault in faults:
                print(f"FALSE {name} seed {seed}: {fault}", flush=True)
            seed += 1
        number = _problems(counts)
        left = counts["MAX_STEPS"] + counts["INACCURATE"]
        print(
            f"{name:32} {number:8} {counts['CONVERGED']:9} {counts['INFEASIBLE']:10} {left:6} "
            f"{found:5}",
            flush=True,
        )
        total += counts
        false += found
    minutes = (time.perf_counter() - start) / 60
    kind = "tie" if args.ties else "label" if args.labels else "flip"
    print(
        f"{_problems(total)} {kind} problems and "
        f"{total['balls']} balls in {minutes:.1f} minutes: "
        f"{total['CONVERGED']} converged, {total['INFEASIBLE']} infeasible, "
        f"{total['MAX_STEPS'] + total['INACCURATE']} undecided, {false} false certificates"
    )
    sys.exit(1 if false else 0)


def _problems(counts: Counter[str]) -> int:
    return sum(n for status, n in counts.items() if status != "balls")


if __name__ == "__main__":
    main()
