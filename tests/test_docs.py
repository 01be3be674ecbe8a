"""The documentation, executed: Python blocks, command lines, links and fences."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import tomllib
from pathlib import Path

import dask
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fsboundary.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "plugins" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    *sorted((ROOT / "docs" / "reference").glob("*.md")),
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATEMENTS = (
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Assert,
    ast.Raise,
    ast.For,
    ast.While,
    ast.If,
    ast.With,
    ast.FunctionDef,
    ast.ClassDef,
)


EXAMPLES = [
    path
    for path in sorted((ROOT / "fsboundary").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_in_docstrings_run(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testmod(module, optionflags=options)
    assert tried
    assert not failed


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


def is_code(line: str) -> bool:
    """Return whether `line` is a prompt or a complete Python statement, and not prose."""
    line = line.strip()
    if line.startswith((">>> ", "$ ")):
        return True
    try:
        [statement] = ast.parse(f"{line} pass" if line.endswith(":") else line).body
    except (SyntaxError, ValueError):
        return False
    return isinstance(statement, STATEMENTS) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    )


def fence_faults(text: str) -> list[str]:
    """Return the lines of code outside fences and the fences without a language or an end."""
    wrong, opened = [], ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            if not opened and line.strip("`").strip() == "":
                wrong.append(f"line {number}: a fence without a language")
            opened = "" if opened else f"line {number}: {line}"
        elif not opened and is_code(line):
            wrong.append(f"line {number}: {line}")
    return [*wrong, opened] if opened else wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_stands_in_fences(page: Path) -> None:
    header = r"\A---\n(.*\n)*?---\n"  # of a page that the build executes
    assert fence_faults(re.sub(header, "", page.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "training = torch.rand(300, 64)",
        "import torch",
        "from torch import nn",
        "assert bound > 0",
        "    print(flips.distance)",
        "for i in range(3):",
        ">>> flips.ok",
        "$ fsboundary demo",
    ],
)
def test_code_outside_fences_is_found(line: str) -> None:
    fenced = f"```python\n{line}\n```\n"
    assert fence_faults(f"Some words.\n\n{fenced}") == []
    assert fence_faults(f"Some words.\n\n{line}\n") == [f"line 3: {line}"]
    assert fence_faults(fenced.removeprefix("```python\n")) != []


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
    # "plugins" has commands of its own; others take options only
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


@pytest.mark.parametrize("style", ["light", "dark"])
def test_the_pictures_of_the_readme_are_those_of_their_script(
    style: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    folder = tmp_path_factory.mktemp("pictures")
    importlib.import_module("pictures").draw_readme(folder)
    path = ROOT / "docs" / "pictures" / f"readme_{style}.png"
    assert path.stat().st_size < 120_000
    kept, drawn = (Image.open(one).convert("RGB") for one in (path, folder / path.name))
    assert kept.size == drawn.size
    # other versions of matplotlib set letters and lines a pixel or two beside (3.8: 2.0 of 255)
    kept, drawn = (np.asarray(one.reduce(8), dtype=float) for one in (kept, drawn))
    assert np.abs(kept - drawn).mean() < 2.5


def test_links_lead_somewhere() -> None:
    missing = [
        f"{name(page)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    top = r"(?:fsboundary|tests|docs|plugins|\.ci)/[\w./-]+"
    paths = set(re.findall(rf"`({top}|[\w./-]+/\w+\.py)`", text))
    # written by a build, or by the template of the page
    paths -= {"docs/_build/html", "tests/test_conformance.py"}
    paths = {path for path in paths if not path.startswith("fsboundary_quick/")}
    roots = (ROOT, ROOT / "fsboundary")
    assert {path for path in paths if not any((r / path).exists() for r in roots)} == set()


def test_every_room_is_on_the_map() -> None:
    rows = re.findall(
        r"^\| `([\w/.]+)` \|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE
    )
    rooms = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for path in (ROOT / "fsboundary").rglob("__init__.py")
    }
    assert rooms - {"fsboundary/"} <= set(rows)


def test_floors_on_the_map_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [
        entry
        for entry in project["tool"]["importlinter"]["contracts"]
        if entry.get("containers") == ["fsboundary"]
    ]
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    [_, section] = text.split("## Import rules")
    floors = re.findall(r"^ (\w+(?: │ \w+)?)(?:  |$)", section.split("```")[1], re.MULTILINE)
    assert floors == [layer.replace("|", "│") for layer in contract["layers"]]
