"""The trusted base and its size: python tests/checks/trusted_base.py.

The modules that assign the final status of a plugin's or a solver's answer, and all that they
import. docs/certificates.md states both sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGE = "fsboundary"


def deciding(graph: grimp.ImportGraph) -> set[str]:
    """Return the modules that decide: every ``certify``, and ``plugins.grading``."""
    grading = f"{PACKAGE}.plugins.grading"
    return {m for m in graph.modules if m.endswith(".certify") or m.startswith(grading)}


def lines(module: str) -> int:
    """Return the number of lines of `module`."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(path.read_text("utf-8").splitlines())


def sizes() -> tuple[int, int]:
    """Return the lines of the modules that decide, and those with all that they import."""
    graph = grimp.build_graph(PACKAGE)
    modules = deciding(graph)
    imported = set().union(*map(graph.find_upstream_modules, modules))
    return sum(map(lines, modules)), sum(map(lines, modules | imported))


def main() -> int:
    """Print the two sizes."""
    deciding_lines, all_lines = sizes()
    print(f"{deciding_lines} lines decide; {all_lines} with all that they import")
    return 0


if __name__ == "__main__":
    sys.exit(main())
