"""Search for false certificates among 100,000 random and adversarial hull projections.

The families and the checker are those of ``tests/support``: extended precision, exact rational
arithmetic where it decides, another solver where an answer does not prove itself, and nothing from
``fsboundary.geometry``. Some of the cases are solved by solvers that return false answers, to test
that grading rejects them. Exits with 1 if any statement is false.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fsboundary.plugins.interfaces import HullSolver
from support.hulls.hostile import LIES, HostileHull
from support.hulls.run_family import HULL_FAMILIES, draw_hulls, examine_hulls

FIRST_SEED = 1000
"""The tests use smaller seeds."""

LIE_EVERY = 5
"""Every fifth case is solved by a solver that returns false answers."""


def main() -> None:
    """Run the hunt and print counts by family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--family", choices=HULL_FAMILIES, help="one family only")
    args = parser.parse_args()
    names = [args.family] if args.family else list(HULL_FAMILIES)
    start, share = time.perf_counter(), args.rows / len(names)
    total: Counter[str] = Counter()
    print(
        f"{'family':30} {'rows':>6} {'converged':>9} {'steps':>5} {'inacc':>6} {'bad':>5} "
        f"{'inside':>6} {'outside':>7} {'open':>5} {'lied to':>7} {'false':>5}"
    )
    for name in names:
        counts, seed = Counter[str](), FIRST_SEED
        while counts["rows"] + counts["lied to"] < share:
            counts += _case(name, seed)
            seed += 1
        left = counts["undecided"] - counts["NOT_FINITE"]
        print(
            f"{name:30} {counts['rows']:6} {counts['CONVERGED']:9} {counts['MAX_STEPS']:5} "
            f"{counts['INACCURATE']:6} {counts['NOT_FINITE']:5} {counts['inside']:6} "
            f"{counts['outside']:7} {left:5} {counts['lied to']:7} {counts['false']:5}",
            flush=True,
        )
        total += counts
    minutes = (time.perf_counter() - start) / 60
    print(
        f"{total['rows'] + total['lied to']} hull projections in {minutes:.1f} minutes: "
        f"{total['rows']} by the default solver, {total['CONVERGED']} of these converged, "
        f"{total['MAX_STEPS'] + total['INACCURATE']} undecided, {total['NOT_FINITE']} not finite; "
        f"{total['lied to']} by lying solvers; {total['false']} false statements"
    )
    sys.exit(1 if total["false"] else 0)


def _case(name: str, seed: int) -> Counter[str]:
    """Print the faults of one case and return its counts."""
    lie = LIES[seed // LIE_EVERY % len(LIES)] if seed % LIE_EVERY == 0 else None
    solver: str | HullSolver = "active_set" if lie is None else HostileHull(lie, seed)
    case = draw_hulls(name, seed)
    try:
        counts, faults = examine_hulls(case, solver)
    except Exception:  # a batch that raises is a fault too, but the search goes on
        print(f"RAISED {name} seed {seed} {lie or ''}\n{traceback.format_exc()}", flush=True)
        return Counter({"rows": len(case.queries), "false": 1})
    for fault in faults:
        print(f"FALSE {name} seed {seed} {lie or ''}: {fault}", flush=True)
    if lie is not None:
        counts = Counter({"lied to": counts["rows"]})
    counts["false"] = len(faults)
    return counts


if __name__ == "__main__":
    main()
