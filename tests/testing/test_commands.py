"""``fsboundary plugins check`` and ``fsboundary plugins new``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsboundary import cli, plugins
from fsboundary.core.errors import ArgumentError
from fsboundary.testing import check_plugin
from fsboundary.testing.checks.hulls import hull_suite
from fsboundary.testing.scaffold import KINDS, write_template


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit code of ``fsboundary plugins WORDS``."""
    monkeypatch.setenv("FSBOUNDARY_PLUGINS", "")
    monkeypatch.setattr(sys, "argv", ["fsboundary", "plugins", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_check_lists_every_check(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", "nnls", "--option", "max_elements=1000000") == 0
    first, *lines, last = capfd.readouterr().out.splitlines()
    assert first.startswith("hull_solver nnls (fsboundary ")
    assert [line.split()[:2] for line in lines] == [["ok", n] for n in hull_suite(dict).names]  # type: ignore[arg-type]  # never called
    assert last == "all checks passed"


def test_check_reports_failures(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # with room for 20 numbers, every problem except one point is rejected
    assert run(monkeypatch, "check", "nnls", "--option", "max_elements=20") == 1
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("  FAIL known_answers: PluginError: ") for line in lines)
    assert lines[-1].endswith(" checks failed")


def test_check_takes_expected_failures(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", "nnls", "--expect-failure", "no_rows=it did once") == 1
    lines = capfd.readouterr().out.splitlines()
    [failed] = [line for line in lines if "FAIL" in line]
    assert failed.endswith("(it did once): remove it")
    assert lines[-1] == "1 checks failed"


def test_check_of_a_name_of_two_kinds_checks_both() -> None:
    kinds = [info.kind for info, _ in check_plugin("cvxpy")]
    assert kinds == ["boundary_finder", "hull_solver"]


def test_check_of_an_unknown_name_is_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", "no_such") == 2
    assert "name: got 'no_such'; wanted a plugin that is ready" in capfd.readouterr().err


def test_check_gives_the_reason_of_a_rejected_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    rejected = plugins.PluginInfo(
        name="late", kind="", distribution="x", version="1", state="rejected", reason="too slow"
    )
    monkeypatch.setattr(plugins, "describe", lambda: [rejected])
    with pytest.raises(ArgumentError, match="got 'late', rejected: too slow"):
        next(check_plugin("late"))


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_a_package(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--kind", kind, "--folder", str(tmp_path)]
    assert run(monkeypatch, "new", "my_thing", *options) == 0
    home = tmp_path / "fsboundary-my-thing"
    assert f"Wrote {home}" in capfd.readouterr().out
    wanted = {"__init__.py", "plugin.py"}
    assert {path.name for path in (home / "fsboundary_my_thing").iterdir()} == wanted
    assert KINDS[kind].hook in (home / "fsboundary_my_thing" / "__init__.py").read_text("utf-8")
    assert run(monkeypatch, "new", "my_thing", *options) == 2
    assert "which exists already" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("name", ["My", "1a", "a-b", "a b", "x", "../up", ""])
def test_names_that_no_module_can_have_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="lower-case letters"):
        write_template(name, "hull-solver", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kinds_are_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArgumentError, match="got 'solver'; wanted one of 'hull-solver'"):
        write_template("mine", "solver", tmp_path)
    assert run(monkeypatch, "new", "mine", "--kind", "solver") == 2
    assert "hull-solver" in capfd.readouterr().err
