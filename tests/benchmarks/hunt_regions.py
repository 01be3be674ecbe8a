"""Search for a point of another class among a million points of guaranteed balls, boxes and hulls.

The sets are those of the demo's network with its real images, and of the random heads and domains
of ``tests/support``. Some points are sampled, the others are the worst of their set for a class, up
to 1e-9 of the border (``tests/support/regions/attacks.py``). Classes are decided in extended
precision and, in doubt, in exact rational arithmetic. Prints one JSON object; exits with 1 if a
class changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.regions.hunting import hunt_everywhere

FIRST_SEED = 5000
"""The tests use smaller seeds."""


def main() -> None:
    """Run the hunt and print counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--tiny", action="store_true", help="a few sets, as a quick check")
    args = parser.parse_args()
    if args.tiny:
        found = hunt_everywhere(0, 0, count=2, thin=3)
    else:
        found = hunt_everywhere(args.points, args.seed, count=8)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["changed"] else 0)


if __name__ == "__main__":
    main()
