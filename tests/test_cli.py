"""The command line: the calls of each command, and the handling of errors."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import numpy as np
import pytest

import fsboundary
import fsboundary.demo
import fsboundary.report.user
import fsboundary.testing
from fsboundary import cli, plugins
from fsboundary.cli.options import BUILT_IN
from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import GENERATOR


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return the exit code."""
    monkeypatch.setattr(sys, "argv", ["fsboundary", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands in an empty folder, where they look for their outputs."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_idle_threads_sleep_unless_the_user_says_otherwise(own: str | None) -> None:
    code = """
import os, sys
from fsboundary.cli import main
assert "torch" not in sys.modules  # which reads the variable once
sys.argv = ["fsboundary", "--version"]
try:
    main()
except SystemExit:
    print(os.environ["OMP_WAIT_POLICY"])
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == (own or "PASSIVE")


@pytest.mark.parametrize(
    ("quota", "own", "expected"),
    [(None, None, "None"), (3, None, "3"), (3, "7", "7")],
)
def test_threads_fit_a_quota_unless_the_user_says_otherwise(
    quota: int | None, own: str | None, expected: str
) -> None:
    code = f"""
import os, sys
from fsboundary import cli
from fsboundary import cores
cli.quota_cores = cores.quota_cores = lambda: {quota}
os.sched_getaffinity = lambda pid: set(range(8))
assert "torch" not in sys.modules  # which reads the variable once
sys.argv = ["fsboundary", "--version"]
try:
    cli.main()
except SystemExit:
    print(os.environ.get("OMP_NUM_THREADS"))
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {} if own is None else {"OMP_NUM_THREADS": own}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == expected


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
    run_demo.assert_called_once_with(
        Path("report.html"), json_path=None, force=False, show_progress=True
    )
    assert capsys.readouterr().out == "Wrote report.html\n"
    assert opened == []


def test_demo_with_all_options(run_demo: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    given = ["--out", "a b.html", "--json", "n.json", "--open", "--quiet"]
    assert call(monkeypatch, "demo", *given) == 0
    run_demo.assert_called_once_with(
        Path("a b.html"), json_path=Path("n.json"), force=False, show_progress=False
    )
    assert opened == [Path("a b.html").resolve().as_uri()]


def test_report(run_report: Mock, needed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "report", *needed, "--out", "mine.html") == 0
    run_report.assert_called_once_with(
        model="mine.nets:make",
        weights=Path(needed[3]),
        data=Path(needed[5]),
        out=Path("mine.html"),
        train=None,
        preprocess=None,
        head=None,
        domain="auto",
        labels=None,
        size=None,
        class_names=None,
        json_path=None,
        finder="dual_newton",
        finder_options={},
        hull_solver="active_set",
        hull_options={},
        extractor="head_input",
        extractor_options={},
        batch_size=256,
        module_folder=Path.cwd(),
        force=False,
        show_progress=True,
    )


@pytest.mark.parametrize("command", ["report", "triage"])
def test_options_of_the_inputs_are_passed_on(
    command: str,
    run_report: Mock,
    needed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {name: tmp_path / f"{name}.txt" for name in ("train", "labels", "class-names")}
    for file in files.values():
        file.write_text("x")
    run_triage = Mock(return_value=Path("suspects.csv"))
    monkeypatch.setattr("fsboundary.review.folders.run_triage", run_triage)
    given = ["--preprocess", "a:b", "--head", "fc", "--domain", "unbounded", "--size", "256:224"]
    for name, file in files.items():
        given += [f"--{name}", str(file)]
    assert call(monkeypatch, command, *needed, *given) == 0
    passed = (run_report if command == "report" else run_triage).call_args.kwargs
    texts = {"preprocess": "a:b", "head": "fc", "domain": "unbounded", "size": "256:224"}
    assert texts.items() <= passed.items()
    assert {name.replace("-", "_"): file for name, file in files.items()}.items() <= passed.items()


def test_labels_and_names_are_inputs_that_are_kept(
    run_report: Mock, needed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "l.csv").write_text("0")
    for option in ("--labels", "--class-names", "--train"):
        given = [option, str(tmp_path / "l.csv"), "--out", str(tmp_path / "l.csv"), "--force"]
        assert call(monkeypatch, "report", *needed, *given) == 2
    run_report.assert_not_called()


def test_help_names_the_options_of_the_built_in_plugins() -> None:
    kinds = {"finder": "boundary_finder", "hull solver": "hull_solver"}
    for what, kind in (kinds | {"extractor": "feature_extractor"}).items():
        ready = [i for i in plugins.describe() if (i.kind, i.distribution) == (kind, "fsboundary")]
        names = {i.name for i in ready if "pixels" not in i.capabilities}
        assert len(names) >= 1
        for name in names:
            signature = inspect.signature(type(plugins.create(kind, name)))
            assert name in BUILT_IN[what]
            for option in signature.parameters.values():
                default = option.default
                shown = "NAME" if default is None else str(default)
                assert f"{option.name}={shown}" in BUILT_IN[what], (name, option)


SHADOW = "import pathlib; pathlib.Path({marker!r}).touch()\n"
SHADOWED = ("jinja2", "markupsafe", "numpy", "torch", "PIL", "safetensors", "matplotlib", "secrets")


def test_files_beside_the_data_do_not_take_the_place_of_modules(
    needed: list[str], tmp_path: Path
) -> None:
    for name in SHADOWED:
        marker = str(tmp_path / f"{name} was run")
        (tmp_path / f"{name}.py").write_text(SHADOW.format(marker=marker))
    np.savez(needed[5], images=np.zeros((2, 1, 4, 4), np.uint8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text(
        "import sys\ndef make(): raise OSError(f'found {sys.path.index(sys.argv[1])}')\n"
    )
    script = "from fsboundary.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "report", *needed],  # -P: as a console script
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "'report' is not in list" in done.stderr  # so the factory was found, and called
    assert list(tmp_path.glob("* was run")) == []


@pytest.mark.parametrize("option", ["--out", "--json"])
@pytest.mark.parametrize("which", [3, 5])
@pytest.mark.parametrize("more", [[], ["--force"]])
def test_inputs_are_not_outputs(
    option: str,
    which: int,
    more: list[str],
    run_report: Mock,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "report", *needed, option, needed[which], *more) == 2
    run_report.assert_not_called()
    assert f"error: {option}: got {needed[which]}, which is the input" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "report"])
@pytest.mark.parametrize("option", ["--out", "--json"])
def test_other_files_are_replaced_only_by_force(
    command: str,
    option: str,
    run_demo: Mock,
    run_report: Mock,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("thesis.tex").write_text("years of work")
    given = [command, *(needed if command == "report" else []), option, "thesis.tex"]
    run = run_report if command == "report" else run_demo
    assert call(monkeypatch, *given) == 2
    assert "thesis.tex, which exists and was not written by fsboundary" in capsys.readouterr().err
    run.assert_not_called()
    assert call(monkeypatch, *given, "--force") == 0
    run.assert_called_once()
    assert run.call_args.kwargs["force"] is True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_on_a_terminal_the_user_decides(
    answer: str,
    code: int,
    run_demo: Mock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("report.html").write_text("mine")
    keyboard = io.StringIO(answer)
    keyboard.isatty = lambda: True  # type: ignore[method-assign]  # a terminal
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert call(monkeypatch, "demo") == code
    assert "report.html was not written by fsboundary. Replace it? [y/N]" in capsys.readouterr().err
    assert run_demo.call_count == (code == 0)
    if code == 0:
        assert run_demo.call_args.kwargs["force"] is True


@pytest.mark.parametrize("command", ["demo", "report"])
@pytest.mark.parametrize("option", ["--out", "--json"])
def test_an_earlier_report_is_not_replaced_silently(
    command: str,
    option: str,
    run_demo: Mock,
    run_report: Mock,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = f'<meta name="generator" content="{GENERATOR}">'
    Path("old.html").write_text(f"<!doctype html>\n{mark}\n")
    given = [command, *(needed if command == "report" else []), option, "old.html"]
    run = run_report if command == "report" else run_demo
    assert call(monkeypatch, *given) == 2
    assert f"{option}: got old.html, which exists; wanted a new" in capsys.readouterr().err
    run.assert_not_called()
    assert call(monkeypatch, *given, "--force") == 0
    run.assert_called_once()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_on_a_terminal_an_earlier_report_is_asked_about(
    answer: str,
    code: int,
    run_demo: Mock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = f'<meta name="generator" content="{GENERATOR}">'
    Path("report.html").write_text(f"<!doctype html>\n{mark}\n")
    keyboard = io.StringIO(answer)
    keyboard.isatty = lambda: True  # type: ignore[method-assign]  # a terminal
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert call(monkeypatch, "demo") == code
    assert "report.html is an earlier result. Replace it? [y/N]" in capsys.readouterr().err
    assert run_demo.call_count == (code == 0)
    if code == 0:  # a file that was not asked about, written meanwhile by others, is kept
        assert run_demo.call_args.kwargs["force"] is False


def test_an_empty_file_is_replaced(run_demo: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("report.html").touch()
    assert call(monkeypatch, "demo") == 0
    run_demo.assert_called_once()


@pytest.mark.parametrize("content", ["mine", "<!doctype html>"])
def test_a_table_of_suspects_is_not_replaced_silently(
    content: str,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("suspects.csv").write_text(content)
    assert call(monkeypatch, "triage", *needed, "--train", needed[5]) == 2
    assert "--out: got suspects.csv, which exists" in capsys.readouterr().err
    assert Path("suspects.csv").read_text() == content


def test_weights_may_be_left_out(
    run_report: Mock, needed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "report", *needed[:2], *needed[4:]) == 0
    assert run_report.call_args.kwargs["weights"] is None


def test_the_command_line_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fsboundary", "--help"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "Usage: python -m fsboundary [OPTIONS] COMMAND [ARGS]..."
    assert not [line for line in lines if line.endswith("...") and line != lines[0]]  # cut


@pytest.mark.parametrize(
    ("words", "found"),
    [("fsboundary re", ["report"]), ("fsboundary report --fin", ["--finder", "--finder-option"])],
)
def test_the_shell_completes_commands_and_options(words: str, found: list[str]) -> None:
    code = "import sys; from fsboundary.cli import main; sys.argv = ['fsboundary']; main()"
    given = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | given | {"_FSBOUNDARY_COMPLETE": "complete_bash"},
    )
    assert done.stdout.split() == found, done.stderr


def test_plugins_have_summaries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    start = head.index("summary or reason")
    for info, line in zip(plugins.describe(), lines, strict=True):
        assert info.summary in line[start:]
        assert line[start:].startswith(info.reason)


def test_names_are_shown_as_they_are_stored(
    run_demo: Mock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = os.fsdecode(b"a\xff\xe2\x80\xae.html")
    assert call(monkeypatch, "demo", "--out", out) == 0
    assert run_demo.call_args.args == (Path(out),)
    assert capsys.readouterr().out == "Wrote a\\xff\\u202e.html\n"
    run_demo.side_effect = ArgumentError("out", out + "\x1b[2J", "a file", "name a file")
    assert call(monkeypatch, "demo") == 2
    assert "got a\\xff\\u202e.html\\x1b[2J; wanted" in capsys.readouterr().err


def test_names_of_plugins_are_shown_as_they_are_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = plugins.PluginInfo(
        name="a\u202eb", kind="", distribution="c\x1b[2J", version="\n", state="rejected"
    )
    monkeypatch.setattr(plugins, "describe", lambda: [info])
    assert call(monkeypatch, "plugins") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["a\\u202eb", "c\\x1b[2J", "\\n", "rejected"]


CLOSED = """
import os, sys
from fsboundary.cli import output
output.open_closed_streams()
with open("later.txt", "w") as later:
    assert later.fileno() > 2, later.fileno()
    with output.stdout_to_stderr() as show:
        show("shown")
        os.write(1, b"to stderr")
    os.write(1, b"to stdout")
    print("to stdout")
    print("to stderr", file=sys.stderr)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    command = f'"$0" -c "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, CLOSED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.replace("to stderr", "").strip()) == (0, "")
    assert (tmp_path / "later.txt").read_text() == ""


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Write the standard output of this process to a device that is full, within this context."""
    sys.stdout.flush()
    saved, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        with (
            open(1, "w", encoding="utf-8", closefd=False) as stream,
            contextlib.redirect_stdout(stream),
        ):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(full)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.usefixtures("run_demo", "run_report")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["report", "--help"],
        ["demo"],
        ["report"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "check", "some"],
        ["plugins", "check", "none"],
        ["plugins", "new", "mine", "--kind", "hull-solver"],
        ["verifier", "verify.py"],
    ],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_one_line(
    arguments: list[str],
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Mock(passed=True, check="answers", message="")
    found = [(Mock(kind="hull_solver", distribution="x", version="1"), [outcome])]
    monkeypatch.setattr(
        fsboundary.testing, "check_plugin", lambda name, **_: found if name == "some" else []
    )
    with full_disk():
        assert call(monkeypatch, *arguments, *(needed if arguments == ["report"] else [])) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("fsboundary: error: output cannot be written (No space left on device).")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("option", "redirection", "shown"),
    [
        ("--version", ">/dev/full", 1),
        ("--nonsense", "2>/dev/full", 0),
        ("--version", ">/dev/full 2>/dev/full", 0),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_exit_code_if_output_cannot_be_written(
    option: str, redirection: str, shown: int, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what Python writes at exit, and its own exit code then, are seen from outside only
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = f'"$0" -m fsboundary {option} {redirection}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", shown)


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


def test_the_verifier_is_written_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "verifier", "verify.py") == 0
    assert capsys.readouterr().out == "Wrote verify.py. Next: python verify.py certificates.json\n"
    assert "Exit status" in (tmp_path / "verify.py").read_text()
    assert call(monkeypatch, "verifier", "verify.py") == 2
    assert "--force" in capsys.readouterr().err
    assert call(monkeypatch, "verifier", "verify.py", "--force") == 0
