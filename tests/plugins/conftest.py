"""Temporary environment with every sample plugin built as a wheel and installed by pip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsboundary
import fsboundary.plugins
from support.plugins.samples import SAMPLES

# Each tree is built by the backend's own hook; one process for all, because the trees are tiny.
BUILD = """
import os, sys
from hatchling.build import build_wheel
for tree in sys.argv[2:]:
    os.chdir(tree)
    build_wheel(sys.argv[1])
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of installed sample plugins, to be put on the path."""
    root = tmp_path_factory.mktemp("plugins")
    for name, sample in SAMPLES.items():
        for path, text in sample.write(name, f"{root}/{name}").items():
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text(text)
    wheels, target = root / "wheels", root / "site"
    trees = [str(root / name) for name in SAMPLES]
    subprocess.run([sys.executable, "-c", BUILD, str(wheels), *trees], check=True)
    built = [str(path) for path in sorted(wheels.glob("*.whl"))]
    assert len(built) == len(SAMPLES)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([sys.executable, *install, str(target), *built], check=True)
    return target


@pytest.fixture
def samples(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the sample plugins available to this process, none of them loaded yet."""
    monkeypatch.delenv("FSBOUNDARY_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    fsboundary.plugins.reset()
    yield
    fsboundary.plugins.reset()
    for name in loaded():
        del sys.modules[name]


def loaded() -> set[str]:
    """Return the sample modules that are imported now."""
    return {name for name in sys.modules if name.startswith("fsb_test_")}


@pytest.fixture
def run(site: Path, warning_options: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python in a new process with the sample plugins."""

    def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
        home = str(Path(fsboundary.__file__).parent.parent)
        environment = {k: v for k, v in os.environ.items() if k != "FSBOUNDARY_PLUGINS"}
        environment["PYTHONPATH"] = os.pathsep.join([str(site), home])
        command = [sys.executable, *warning_options, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run_python
