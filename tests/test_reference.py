"""The reference: every public object has one page and an example, which test_docs runs."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

from support.public_objects import public_objects

ROOT = Path(__file__).parent.parent
OBJECTS = public_objects()
ENTRY = re.compile(r"^   ([A-Za-z][\w.]*)$", re.MULTILINE)
"""An entry of a summary table."""

TABLE = re.compile(r"^\.\. autosummary::\n(?:   :.*\n)+\n((?:   \S+\n)+)", re.MULTILINE)


def test_every_public_object_has_an_example() -> None:
    with_example = [name for name, one in OBJECTS.items() if ">>> " in (one.__doc__ or "")]
    print(f"{len(with_example)} of {len(OBJECTS)} public objects have an example")
    assert sorted(OBJECTS.keys() - set(with_example)) == []
    # the list itself is looked at: a list that lost its names would pass
    assert len(OBJECTS) > 150


def test_examples_are_where_they_are_run() -> None:
    """test_docs runs those of the modules of the package, found by their text."""
    for name, one in OBJECTS.items():
        path = Path(inspect.getsourcefile(inspect.unwrap(one)) or "")
        assert ">>> " in path.read_text("utf-8"), name


def test_every_public_object_has_one_entry() -> None:
    listed = Counter(
        entry
        for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
        for table in TABLE.findall(page.read_text("utf-8"))
        for entry in ENTRY.findall(table)
    )
    assert {name for name, count in listed.items() if count > 1} == set()
    assert set(listed) == set(OBJECTS)
