"""What the documentation shows, run: its Python, its command lines, its links."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import pytest
from typer.testing import CliRunner

from fsboundary.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "plugins" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the first line and the text of each fenced block of `language`."""
    text = page.read_text("utf-8")
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        for line, code in blocks(page, "python"):
            # blank lines before the code, so that a traceback names the page's own line
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def first(value: str | list[str]) -> str:
    return value if isinstance(value, str) else value[0]


def command_lines() -> list[tuple[str, list[str]]]:
    """Return every `fsboundary ...` command of the pages, with the page's name."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            joined = text.replace("\\\n", " ")
            lines = [part for line in joined.splitlines() for part in line.split("&&")]
            found += [
                (name(page), line.split("fsboundary ", 1)[1].split())
                for line in lines
                if re.search(r"(^|/| )fsboundary [a-z]", line)
            ]
    return found


@pytest.mark.parametrize(
    ("page", "words"), command_lines(), ids=lambda v: v if isinstance(v, str) else v[0]
)
def test_commands_exist(page: str, words: list[str]) -> None:
    # "plugins" has commands of its own; others take options alone
    deep = words[0] == "plugins" and words[1:] and not words[1].startswith("-")
    shown = CliRunner().invoke(app, [*words[: 2 if deep else 1], "--help"])
    assert shown.exit_code == 0, page
    assert {word for word in words[1:] if word.startswith("--")} <= set(shown.output.split()), page


def test_ci_runs_the_second_command_of_the_readme() -> None:
    demo, test = (text.strip() for _, text in blocks(ROOT / "README.md", "bash")[:2])
    for command in (demo, test):
        assert "\n" not in command
    assert demo.endswith("fsboundary demo")
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1] == test


def test_links_lead_somewhere() -> None:
    missing = [
        f"{name(page)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert missing == []
