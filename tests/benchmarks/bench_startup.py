"""Time of `fsboundary plugins` with the packages of plugins/, minus importing torch and captum.

Both are started in turn, each in a new process; the figure is the difference of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from packages import ROOT, install

COMMANDS = {
    "torch_and_captum": ["-c", "import torch, captum"],
    "fsboundary_plugins": ["-m", "fsboundary", "plugins"],
}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return the wall seconds of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        installed = install(Path(folder))
        environment = {k: v for k, v in os.environ.items() if k != "FSBOUNDARY_PLUGINS"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), folder])
        taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for turn in range(args.rounds + 1):
            for name, command in COMMANDS.items():
                each = seconds(command, environment)
                if turn:  # the first run writes bytecode and fills the system's cache
                    taken[name].append(each)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    row = {
        "packages": installed,
        "rounds": args.rounds,
        **{f"{name}_seconds": round(value, 3) for name, value in medians.items()},
        "above_seconds": round(medians["fsboundary_plugins"] - medians["torch_and_captum"], 3),
    }
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
