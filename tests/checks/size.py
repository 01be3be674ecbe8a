"""Sizes of modules, with their limits: python tests/checks/size.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
LARGEST, MEDIAN, PLUGIN = 500, 150, 150

ALONE = {"fsboundary/certificates/verify.py": 730}
"""Larger limits of modules that must be one file, because they are copied out of the package."""


_EXAMPLES = re.compile(r'^\n +Examples\n +-+\n.*?(?=^ +""")', re.MULTILINE | re.DOTALL)
"""A section of examples, from the blank line before it to the end of its docstring.

Every public object must have one. The median, which is about code, does not count them; the limits
of single files do.
"""


def count_lines(text: str) -> int:
    """Return the number of lines of a module, without the examples of its docstrings."""
    return len(_EXAMPLES.sub("", text).splitlines())


def texts(folder: Path) -> dict[str, str]:
    """Return the text of each module under `folder`."""
    return {
        path.relative_to(folder.parent).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*.py"))
    }


def lengths(folder: Path) -> dict[str, int]:
    """Return the number of lines of each module under `folder`."""
    return {path: len(text.splitlines()) for path, text in texts(folder).items()}


def failures_of(
    core: dict[str, int], plugins: dict[str, int], code: dict[str, int] | None = None
) -> list[str]:
    """Return one line for each broken limit; `code` are the lines of the core for the median."""
    limits = {path: ALONE.get(path, LARGEST) for path in core}
    failures = [f"{p}: {n} lines, limit {limits[p]}" for p, n in core.items() if n > limits[p]]
    failures += [f"{p}: {n} lines, limit {PLUGIN - 1}" for p, n in plugins.items() if n >= PLUGIN]
    if (middle := median((code or core).values())) >= MEDIAN:
        failures.append(f"the median module has {middle:g} lines, limit {MEDIAN - 1}")
    return failures


def main() -> int:
    """Print the largest and the median, and every broken limit."""
    core, plugins = lengths(ROOT / "fsboundary"), lengths(ROOT / "plugins")
    code = {path: count_lines(text) for path, text in texts(ROOT / "fsboundary").items()}
    largest, middle = max(core, key=core.__getitem__), median(code.values())
    print(f"{len(core)} modules: largest {core[largest]} ({largest}), median {middle:g}")
    if plugins:
        largest = max(plugins, key=plugins.__getitem__)
        print(f"{len(plugins)} plugin modules: largest {plugins[largest]} ({largest})")
    failures = failures_of(core, plugins, code)
    print("\n".join(failures) if failures else "sizes: ok")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
