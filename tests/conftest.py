"""What all tests share: example generation that repeats, and the two permitted skips."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# deadline=None: a time limit would fail tests for the load of the machine, not for their subject
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if "CI" in os.environ else "dev")

# jaxtyping imports only the first part of the name of its checker, `checks.shapes.check`
importlib.import_module("checks.shapes")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # one worker a core: more threads would only wait for each other

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FULL_DATASET = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it

MISSING = {
    "needs_chromium": None if CHROMIUM else "the system's Chromium is not installed",
    "needs_full_dataset": None if FULL_DATASET.is_dir() else f"{FULL_DATASET} is not installed",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test whose need is not met; tests/checks/skips.py reads the reason."""
    for marker, missing in MISSING.items():
        if missing and item.get_closest_marker(marker):
            pytest.skip(f"{marker}: {missing}")


@pytest.fixture(scope="session")
def warning_options(pytestconfig: pytest.Config) -> list[str]:
    """Return the options of a new Python process, in which warnings are errors if they are here."""
    return ["-Werror"] if "error" in pytestconfig.getini("filterwarnings") else []


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top folder of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the system's Chromium (for tests marked needs_chromium)."""
    assert CHROMIUM is not None
    return CHROMIUM


@pytest.fixture(scope="session")
def full_dataset() -> Path:
    """Return the folder of all of Fashion-MNIST (for tests marked needs_full_dataset)."""
    return FULL_DATASET
