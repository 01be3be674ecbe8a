"""The glossary of docs/style.md: words and names that it retires do not come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

WORDS = re.compile(r"^\| (?P<retired>[^|]+) \| [^|]+ \|$", re.MULTILINE)
TEXTS = (".py", ".md", ".j2", ".toml", ".cff")


def retired(style: str) -> tuple[list[str], list[str]]:
    """Return the retired words, and the retired identifiers, of the last table of `style`."""
    rows = WORDS.findall(style[style.index("## Retired words") :])
    entries = [e.strip() for row in rows[1:] for e in row.split(",")]
    names = [e.strip("`") for e in entries if e.startswith("`")]
    # a remark in brackets says where a word is retired
    words = [e.partition(" (")[0] for e in entries if not e.startswith(("`", "-"))]
    return words, names


def pattern(words: list[str]) -> re.Pattern[str]:
    """Return what finds any of `words`, in either case and across line breaks."""
    found = "|".join(r"[\s#*]+".join(map(re.escape, word.split())) for word in words)
    return re.compile(rf"(?<![\w-])({found})(?![\w-])", re.IGNORECASE)


def sources(root: Path, *folders: str) -> Iterator[Path]:
    """Yield the texts of the project in which readers meet its words."""
    yield from (path for path in root.glob("*.*") if path.suffix in TEXTS)
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in TEXTS and "_build" not in path.parts:
                yield path


def hits(root: Path, found: re.Pattern[str], *folders: str) -> list[str]:
    """Return where `found` occurs: file, line and word."""
    # the page that lists the words
    pages = (p for p in sources(root, *folders) if p.name not in ("style.md", "test_style.py"))
    return [
        f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path in pages
        for text in [path.read_text("utf-8")]
        for match in found.finditer(text)
    ]


@pytest.fixture(scope="module")
def lists(root: Path) -> tuple[list[str], list[str]]:
    return retired((root / "docs" / "style.md").read_text("utf-8"))


def test_table_is_read(lists: tuple[list[str], list[str]]) -> None:
    words, names = lists
    assert {"lent", "told", "all the same", "set aside"} <= set(words)
    assert {"Lent", "find_flip_points", "feature_shares"} <= set(names)
    assert "retired" not in words


def test_check_finds_what_it_should() -> None:
    found = pattern(["told", "all the same"])
    assert found.findall("He is Told; all\n    # the same.") == ["Told", "all\n    # the same"]
    assert not found.search("untold, told_by, all these same")


def test_retired_words_stay_away(root: Path, lists: tuple[list[str], list[str]]) -> None:
    assert hits(root, pattern(lists[0]), "fsboundary", "plugins", "docs") == []


def test_retired_names_stay_away(root: Path, lists: tuple[list[str], list[str]]) -> None:
    found = re.compile(rf"\b({'|'.join(map(re.escape, lists[1]))})\b")
    assert hits(root, found, "fsboundary", "plugins", "docs", "tests") == []
