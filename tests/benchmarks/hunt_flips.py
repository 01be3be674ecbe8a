"""Search for false certificates among 100,000 random and adversarial flip problems.

The families and the checker are those of ``tests/support``: extended precision, exact rational
arithmetic where it decides, and nothing from ``fsboundary.geometry``. The guaranteed balls of every
case are checked and attacked too; with ``--ties`` random classes tie instead, and with
``--labels`` the classes are labels that are decided separately. With ``--classes 1000 --width 512``
the heads have the size of an ImageNet network, and every class is a target of every row. Exits with
1 if any certificate is false.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.flips.label_checker import examine_labels
from support.flips.large import LARGE_HEADS, large
from support.flips.run_family import FAMILIES, draw, examine, examine_flips
from support.flips.tie_checker import examine_ties

FIRST_SEED = 1000
"""The tests use smaller seeds."""


def main() -> None:
    """Run the hunt and print counts by family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--ties", action="store_true", help="tie points instead of flip points")
    parser.add_argument("--labels", action="store_true", help="label flips instead of flip points")
    parser.add_argument("--classes", type=int, help="heads with this many classes only")
    parser.add_argument("--width", type=int, default=512, help="features of such heads")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after these")
    args = parser.parse_args()
    if args.classes:
        sys.exit(_hunt_large(args.problems, args.classes, args.width, args.minutes))
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


def _hunt_large(problems: int, classes: int, width: int, minutes: float) -> int:
    """Run the hunt on heads of one size; return 1 if a certificate was false."""
    start, total, false, seed = time.perf_counter(), Counter[str](), 0, FIRST_SEED
    while _problems(total) < problems and time.perf_counter() - start < 60 * minutes:
        kind = LARGE_HEADS[seed % len(LARGE_HEADS)]
        counts, faults = examine_flips(large(kind, classes, width, seed))
        for fault in faults:
            print(f"FALSE {kind} seed {seed}: {fault}", flush=True)
        print(f"{kind:20} seed {seed}: {dict(counts)}", flush=True)
        total, false, seed = total + counts, false + len(faults), seed + 1
    taken = (time.perf_counter() - start) / 60
    print(
        f"{_problems(total)} flip problems of {classes} classes and {width} features in "
        f"{taken:.1f} minutes: {dict(total)}, {false} false certificates"
    )
    return 1 if false else 0


def _problems(counts: Counter[str]) -> int:
    return sum(n for status, n in counts.items() if status != "balls")


if __name__ == "__main__":
    main()
