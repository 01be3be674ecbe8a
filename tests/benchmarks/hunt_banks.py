"""Search for damage to banks on disk that is not noticed, and for rows that two builders lose.

Changes single bytes over all files of a bank, edits its metadata, exchanges and links its chunks;
each must be refused or change no answer (``tests/support/banks/damage.py``). Then two processes at
a time build one bank and are killed at random moments; the bank must be refused until it is
complete, and end as the bank that one process builds (``tests/support/banks/builders.py``). Prints
one JSON object; exits with 1 if something went wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.banks.builders import build_twice
from support.banks.damage import edits, flips

FIRST_SEED = 5000
"""The tests use smaller seeds."""


def main() -> None:
    """Run the hunt and print counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--builders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        banks = Path(folder)
        built = build_twice(banks, args.builders, args.seed)
        whole, work = banks / "whole", banks / "work" / "bank"
        flipped = flips(whole, work, args.flips, args.seed)
        edited, passed = edits(whole, work, args.edits, args.seed)
    found = {"builders": built, "flips": flipped, "edits": edited, "harmless edits": passed}
    print(json.dumps(found, indent=1))
    faults = [name for name in (*built, *flipped, *edited) if name not in EXPECTED]
    sys.exit(1 if faults else 0)


EXPECTED = {
    *("refused", "same", "finished", "killed", "left unfinished", "left complete"),
    *("both killed", "both refused", "both finished"),
}
"""All other ends are faults."""


if __name__ == "__main__":
    main()
