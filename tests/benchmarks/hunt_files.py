"""Search for files of images, arrays and weights that are read wrongly, or break the reader.

Each damaged file must be a DataError that names it, or give what an independent reader finds. No
process may be started, and the memory stays below 1 GiB. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.damaged_files import SUFFIXES, damaged, kinds

PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn")
"""Audit events of Python that start a process."""

LIMIT = 2**30


def main() -> None:
    """Run the hunt and print counts by kind of file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args()
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event in PROCESSES else None)
    faults, begin = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, (seeds, file, read) in kinds().items():
            counts: Counter[str] = Counter()
            slowest = 0.0
            for kind, content in damaged(seeds, args.files, args.seed):
                start = time.perf_counter()
                try:
                    right = read(Path(folder) / (file + SUFFIXES.get(kind, "")), kind, content)
                    counts["right" if right else "refused"] += 1
                except Exception:
                    counts["faults"] += 1
                    if counts["faults"] <= 5:
                        traceback.print_exc()
                slowest = max(slowest, time.perf_counter() - start)
            print(
                f"{name:12} {args.files} damaged files: {counts['refused']} refused, "
                f"{counts['right']} read rightly, {counts['faults']} faults, "
                f"the slowest in {slowest:.2f} s",
                flush=True,
            )
            faults += counts["faults"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    minutes = (time.perf_counter() - begin) / 60
    print(
        f"{minutes:.1f} minutes, {len(started)} processes started, at most {peak / 2**20:.0f} MiB "
        "of memory"
    )
    sys.exit(bool(faults or started or peak >= LIMIT))


if __name__ == "__main__":
    main()
