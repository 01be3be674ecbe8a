"""Forged journals of partitions: 200 runs, 50 forged lines each, every answer checked.

A forged line has a correct sum and key. It is refused, or the answer is compared with fractions and
with an honest run. Prints one JSON object; a false statement raises.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.regions.journal_attacks import attack


def main() -> None:
    """Run the hunt and print counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run")
    args = parser.parse_args()
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seed, args.seed + args.runs):
            seen += attack(Path(folder) / f"{seed}.jsonl", seed, args.edits)
    print(json.dumps({"runs": args.runs, "forged": dict(seen), "false": 0}, indent=1))


if __name__ == "__main__":
    main()
