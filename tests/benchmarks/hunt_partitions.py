"""Partitions of 1,000 random heads, compared with enumeration, Qhull and rational arithmetic.

The heads and the slow methods are those of ``tests/support/regions``. Prints one JSON object; exits
with 1 if any answer disagrees.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.regions.partition_hunt import examine


def main() -> None:
    """Run the hunt and print counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first head")
    args = parser.parse_args()
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(args.seed, args.seed + args.heads):
        faults, statuses = examine(seed)
        seen += statuses
        wrong += [f"seed {seed}: {fault}" for fault in faults]
    found = {"heads": args.heads, "answers": dict(seen), "disagree": len(wrong)}
    print(json.dumps({**found, "first": wrong[:20]}, indent=1))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
