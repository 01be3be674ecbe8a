"""Installation of the packages of plugins/ into a separate folder, for benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(target: Path) -> list[str]:
    """Install every package of plugins/ into `target` and return their names."""
    trees = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, *map(str, trees)]
    subprocess.run(command, check=True)
    return [tree.name for tree in trees]
