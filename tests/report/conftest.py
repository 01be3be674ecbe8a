"""What the report tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsboundary.demo import run_demo
from report.samples import Page, tiny_page


@pytest.fixture(scope="session")
def page() -> Page:
    """Return the page of the plain tiny subject; not to be changed."""
    return tiny_page()


@pytest.fixture(scope="session")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the demo's page and its numbers."""
    folder = tmp_path_factory.mktemp("demo")
    page, numbers = folder / "report.html", folder / "report.json"
    assert run_demo(page, json_path=numbers, show_progress=False) == page
    return page, numbers
