"""Print every skipped test and fail on one that is not allowed.

``python tests/checks/skips.py junit.xml .ci/allowed-skips``. Each line of the second file is a
marker and why tests with it may be skipped. tests/conftest.py puts the marker before the reason.
An expected failure counts as a skip that is not allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def allowed(text: str) -> set[str]:
    """Return the markers that `text` lists, each with a reason."""
    markers = set()
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            marker, _, reason = line.partition(" ")
            if not reason.strip():
                raise SystemExit(f"allowed-skips: {marker} has no reason")
            markers.add(marker)
    return markers


def skipped(junit: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the reason of each skipped test of a JUnit report."""
    for case in ElementTree.fromstring(junit).iter("testcase"):
        for skip in case.iter("skipped"):
            name = f"{case.get('classname')}::{case.get('name')}"
            prefix = "xfail: " if skip.get("type") == "pytest.xfail" else ""
            yield name, prefix + (skip.get("message") or "no reason given")


def main(junit: str, allow: str) -> int:
    """Print each skip as allowed or not; return 1 if one is not."""
    markers = allowed(Path(allow).read_text("utf-8"))
    unexpected = total = 0
    for name, reason in skipped(Path(junit).read_text("utf-8")):
        fine = reason.split(":")[0] in markers
        print(f"skip {'allowed' if fine else 'NOT ALLOWED'}: {name}: {reason}")
        total, unexpected = total + 1, unexpected + (not fine)
    print(f"skips: {total}, not allowed: {unexpected}")
    return int(unexpected > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
