"""docs/first_plugin.md: its commands are run and its files are built."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fsboundary.cli import app
from support.plugins.environment import Environment

FENCE = re.compile(r"^```(\S.*?)\n(?::caption: (\S+)\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)

# Commands are run in one process of the environment: importing torch takes longer than they do.
DRIVER = """
import runpy, shlex, sys
import pytest
from fsboundary.cli import app
for line in sys.argv[1:]:
    program, *arguments = shlex.split(line)
    if program == "pytest":
        plain = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib"]
        code = int(pytest.main([*plain, *arguments]))
    elif program == "fsboundary":
        code = app(arguments, standalone_mode=False) or 0
    else:
        assert program == "python"
        runpy.run_path(arguments[0])
        code = 0
    assert code == 0, line
    print("done:", line)
"""


@pytest.fixture
def steps(root: Path) -> list[tuple[str, str, str]]:
    """Return language, caption and text of each block of the page, in order."""
    return FENCE.findall((root / "docs" / "first_plugin.md").read_text("utf-8"))


def test_page_gives_a_working_plugin(
    steps: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home, environment = tmp_path / "fsboundary-quick", Environment(tmp_path)
    waiting: list[str] = []
    replaced = []

    def catch_up() -> None:
        done = environment.run("-c", DRIVER, *waiting, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        assert [line for line in done.stdout.splitlines() if line.startswith("done: ")] == [
            f"done: {line}" for line in waiting
        ]
        waiting.clear()

    for language, caption, text in steps:
        if language == "bash":
            for line in text.splitlines():
                if line.startswith("fsboundary plugins new "):
                    made = CliRunner().invoke(app, shlex.split(line)[1:])
                    assert made.exit_code == 0, made.output
                elif line.startswith("pip install -e "):
                    environment.install([home])
                else:
                    waiting.append(line)
        elif language == "{code-block} toml":
            assert text.strip() in (home / caption).read_text("utf-8")
        elif caption == "use.py":
            (tmp_path / caption).write_text(text, "utf-8")
            waiting.append(f"python {caption}")
        elif text != (home / caption).read_text("utf-8"):
            # installed as a wheel, not with -e: pending commands on the old files are run first
            catch_up()
            (home / caption).write_text(text, "utf-8")
            environment.install([home])
            replaced.append(caption)
    catch_up()
    # the other files are shown as the template writes them
    assert replaced == ["fsboundary_quick/plugin.py"]
