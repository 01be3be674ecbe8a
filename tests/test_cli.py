"""The command line: the calls of each command, and the handling of errors."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest

import fsboundary
import fsboundary.demo
import fsboundary.report.user
from fsboundary import cli, plugins
from fsboundary.core.errors import ArgumentError


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return the exit code."""
    monkeypatch.setattr(sys, "argv", ["fsboundary", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.fixture
def run_demo(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replace the demo by a function of the same signature that only notes the call."""
    noted = create_autospec(fsboundary.demo.run_demo, side_effect=lambda out, **_: out)
    monkeypatch.setattr(fsboundary.demo, "run_demo", noted)
    return noted


@pytest.fixture
def run_report(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replace the report by a function of the same signature that only notes the call."""
    noted = create_autospec(
        fsboundary.report.user.run_report, side_effect=lambda **given: given["out"]
    )
    monkeypatch.setattr(fsboundary.report.user, "run_report", noted)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the current folder
    return noted


@pytest.fixture
def needed(tmp_path: Path) -> list[str]:
    """Return the options that `report` cannot do without."""
    weights, data = tmp_path / "weights.safetensors", tmp_path / "images.npz"
    weights.touch()
    data.touch()
    return ["--model", "mine.nets:make", "--weights", str(weights), "--data", str(data)]


RUN_HELP = """
import sys
from fsboundary.cli import main
sys.argv = ["fsboundary", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "numpy", "captum", "pluggy", "matplotlib", "fsboundary.plugins"}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("command", ["demo", "report", "plugins"])
def test_help_of_a_command_is_light(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_HELP, command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *shown, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert any(command in line for line in shown)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"fsboundary {fsboundary.__version__}\n"


def test_plugins_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    infos = plugins.describe()
    assert [row["name"] for row in rows] == [info.name for info in infos]
    fields = set(plugins.PluginInfo.__dataclass_fields__)
    assert all(set(row) == fields for row in rows)
    assert all(isinstance(row["capabilities"], list) for row in rows)


def test_plugins_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    start = head.index("distribution")
    assert len(lines) == len(plugins.describe())
    assert lines[0][start:].startswith("fsboundary ")


def test_demo(
    run_demo: Mock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert call(monkeypatch, "demo") == 0
    run_demo.assert_called_once_with(Path("report.html"), json_path=None, show_progress=True)
    assert capsys.readouterr().out == "Wrote report.html\n"
    assert opened == []


def test_demo_with_all_options(run_demo: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    given = ["--out", "a b.html", "--json", "n.json", "--open", "--quiet"]
    assert call(monkeypatch, "demo", *given) == 0
    run_demo.assert_called_once_with(
        Path("a b.html"), json_path=Path("n.json"), show_progress=False
    )
    assert opened == [Path("a b.html").resolve().as_uri()]


def test_report(run_report: Mock, needed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "report", *needed, "--out", "mine.html") == 0
    run_report.assert_called_once_with(
        model="mine.nets:make",
        weights=Path(needed[3]),
        data=Path(needed[5]),
        out=Path("mine.html"),
        json_path=None,
        finder="dual_newton",
        finder_options={},
        hull_solver="active_set",
        hull_options={},
        extractor="head_input",
        extractor_options={},
        batch_size=256,
        show_progress=True,
    )


def test_report_finds_modules_where_it_is_called(
    run_report: Mock, needed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "report", *needed) == 0
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-9", 1e-9),
        ("True", True),
        ("(1, 2)", (1, 2)),
        ("CLARABEL", "CLARABEL"),
        ("a=b", "a=b"),
        ("'3'", "3"),
        ("", ""),
    ],
)
@pytest.mark.parametrize(
    ("kind", "plugin", "option", "options"),
    [
        ("finder", "--finder", "--finder-option", "finder_options"),
        ("hull_solver", "--hull-solver", "--hull-option", "hull_options"),
        ("extractor", "--extractor", "--extractor-option", "extractor_options"),
    ],
)
def test_options_of_plugins_are_literals_or_text(
    kind: str,
    plugin: str,
    option: str,
    options: str,
    text: str,
    value: Any,
    run_report: Mock,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [plugin, "cvxpy", option, f"x={text}", option, "y=1"]
    assert call(monkeypatch, "report", *needed, *given, "--batch-size", "8") == 0
    kwargs = run_report.call_args.kwargs
    assert kwargs[kind] == "cvxpy"
    assert kwargs[options] == {"x": value, "y": 1}
    assert type(kwargs[options]["x"]) is type(value)
    assert kwargs["batch_size"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--finder-option", "novalue"], "got 'novalue'; wanted NAME=VALUE"),
        (["--finder-option", "max-steps=3"], "got 'max-steps=3'; wanted NAME=VALUE"),
        (["--hull-option", "novalue"], "for --hull-option: got 'novalue'; wanted NAME=VALUE"),
        (["--batch-size", "0"], "--batch-size"),
        (["--data", "/no/such/folder"], "does not exist"),
    ],
)
def test_misuse_is_reported_before_work_starts(
    changes: list[str],
    message: str,
    run_report: Mock,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "report", *needed, *changes) == 2
    run_report.assert_not_called()
    assert message in " ".join(capsys.readouterr().err.split())


def test_own_errors_are_one_line(
    run_demo: Mock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo.side_effect = ArgumentError("out", "a\nfolder", "a file", "name a file")
    assert call(monkeypatch, "demo") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "fsboundary: error: out: got a folder; wanted a file. Fix: name a file.\n"


def test_other_errors_keep_their_traceback(run_demo: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    run_demo.side_effect = ZeroDivisionError("a defect")
    monkeypatch.setattr(sys, "argv", ["fsboundary", "demo"])
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cli.main()
