"""The packages of plugins/ and two templates, installed once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsboundary.testing.scaffold import write_template
from support.plugins.environment import Environment

ROOT = Path(__file__).parents[2]
TREES = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return trees from `fsboundary plugins new`; test_first_plugin.py covers the third kind."""
    folder = tmp_path_factory.mktemp("templates")
    kinds = {"my_finder": "boundary-finder", "some_features": "feature-extractor"}
    return [write_template(name, kind, folder) for name, kind in kinds.items()]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, templates: list[Path]) -> Environment:
    """Return a clean environment with every package of plugins/ and the templates."""
    made = Environment(tmp_path_factory.mktemp("packages"))
    trees = [*TREES, *templates]
    assert len(made.install(trees)) == len(trees)
    return made
