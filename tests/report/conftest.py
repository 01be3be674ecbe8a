"""Fixtures of the report tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsboundary.demo import run_demo
from fsboundary.report.sections.pixels import sizes
from fsboundary.report.sections.pixels.sizes import Sizes
from support.report import Page, tiny_page


@pytest.fixture(autouse=True)
def few_steps_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the section on pixels quick: most tests are about other sections."""
    few = Sizes(
        flips=2,
        flip_steps=20,
        inverses=1,
        inverse_steps=2,
        morphs=1,
        frames=3,
        frame_steps=2,
        ranked=4,
        directions=2,
        move_steps=2,
        sampled=4,
        sampled_flips=2,
        pairs=4,
        path_points=3,
        training=10,
    )
    monkeypatch.setattr(sizes, "FULL", few)
    monkeypatch.setattr(sizes, "MINIMUM", few)


@pytest.fixture(scope="session")
def page() -> Page:
    """Return the page of the plain tiny subject; not to be changed."""
    return tiny_page()


@pytest.fixture(scope="session")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the demo's page and its numbers."""
    folder = tmp_path_factory.mktemp("demo")
    page, numbers = folder / "report.html", folder / "report.json"
    with pytest.MonkeyPatch.context() as patch:
        # on a busy machine the section on pixels would be smaller
        patch.setattr(sizes, "SECONDS", float("inf"))
        assert run_demo(page, json_path=numbers, show_progress=False) == page
    return page, numbers
