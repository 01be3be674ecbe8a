"""Search for exported certificates that `verify.py` refuses, and for false ones that it accepts.

For each kind of result: certificates of random problems are written until there are a thousand, and
`verify.py`, copied out of the package, checks every file in a process that can import nothing else.
Then single numbers are changed in 200 files: no claim that the change made false may hold. Exits
with 1 if a true certificate is refused, or a false one is accepted.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import fsboundary as fsb
from fsboundary.certificates import verify
from support.certificate_mutations import TRUTH, mutate
from support.certificates import KINDS, write

FIRST_SEED = 10_000
"""The tests use smaller seeds."""


def exported(kind: str, count: int, folder: Path, verifier: Path) -> tuple[int, int, int]:
    """Return the numbers of certificates, of files, and of files that do not hold."""
    certificates, files, seed = 0, [], FIRST_SEED
    while certificates < count:
        file = write(kind, seed, folder / f"{seed}.json")
        claims = len(json.loads(file.read_text())["claims"])
        seed, certificates = seed + 1, certificates + claims
        files += [file] if claims else []
    refused = 0
    for file in files:
        # isolated: neither this package nor any other can be imported
        command = [sys.executable, "-I", "-S", str(verifier), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        refused += done.returncode != 0
    return certificates, len(files), refused


def mutated(kind: str, count: int, folder: Path) -> tuple[int, int]:
    """Return in how many changed files a claim or the file is refused, and how many lie."""
    chance, refused, lies = random.Random(f"{kind} {FIRST_SEED}"), 0, 0
    seed = FIRST_SEED
    for _ in range(count):
        data = {"claims": []}
        while not data["claims"]:
            data = json.loads(write(kind, seed, folder / "mutated.json").read_text())
            seed += 1
        changed = mutate(data, chance)
        try:
            read = verify.Problem(changed)
            held = [verify.fault(read, claim) is None for claim in changed["claims"]]
        except verify.Malformed:
            refused += 1
            continue
        refused += not all(held)
        for claim, holding in zip(changed["claims"], held, strict=True):
            lies += holding and not TRUTH[claim["kind"]](changed, claim)
    return refused, lies


def main() -> None:
    """Run the hunt and print counts by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=int, default=1000, help="per kind")
    parser.add_argument("--mutations", type=int, default=200, help="per kind")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    args = parser.parse_args()
    start, wrong = time.process_time(), 0
    print(f"{'kind':12} {'certificates':>12} {'files':>6} {'refused':>8}   changed refused  lies")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        verifier = fsb.write_verifier(folder / "verify.py")
        for kind in args.kinds:
            certificates, files, bad = exported(kind, args.certificates, folder, verifier)
            refused, lies = mutated(kind, args.mutations, folder)
            print(
                f"{kind:12} {certificates:12} {files:6} {bad:8} {args.mutations:9} {refused:7} "
                f"{lies:5}",
                flush=True,
            )
            wrong += bad + lies
    print(f"{(time.process_time() - start) / 60:.1f} minutes of processor time here")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
