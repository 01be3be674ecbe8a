"""The page of a triage in the system's Chromium: 50,000 rows, sorted, filtered, by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from fsboundary.review.page import page_of
from fsboundary.review.table import COLUMNS

pytestmark = pytest.mark.needs_chromium
ROWS = 50_000
FLAGS = ["--no-sandbox", "--disable-gpu"]  # root in a container has no sandbox; the page is ours


def row(number: int) -> dict[str, object]:
    """Return a row whose numbers are those of a random order, with some missing and infinite."""
    found: dict[str, object] = dict.fromkeys(COLUMNS, "usual")
    novel = (number * 7919) % ROWS / ROWS
    found |= {"id": number, "file": f"image {number:05d}.png", "given": number % 10}
    found |= {"predicted": number % 10, "runner_up": 3, "suggested": None, "status": "OK"}
    found |= {"novelty": novel, "novelty_p": None if number % 5 == 0 else novel, "distrust": 0.5}
    found |= {"flip_distance": float("inf") if number == 17 else novel, "flip_lower": 0.0}
    found["novelty_verdict"] = "suspicious" if novel > 0.999 else "usual"
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_it_sorts_and_filters_fifty_thousand_rows(
    chromium: str, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "".join(page_of(map(row, range(ROWS)), ROWS, COLUMNS, None, "Suspects")), "utf-8"
    )
    seen: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.goto(path.as_uri())
        first = "#rows tr:nth-child(2) td:nth-child(3)"
        assert page.text_content(first) == "image 00000.png"
        assert page.locator("#rows tr").count() < 60
        page.get_by_role("button", name="novelty", exact=True).focus()
        page.keyboard.press("Enter")
        largest = max(range(ROWS), key=lambda n: (n * 7919) % ROWS)
        assert page.text_content(first) == f"image {largest:05d}.png"
        head = page.locator("th", has=page.get_by_role("button", name="novelty", exact=True))
        assert head.get_attribute("aria-sort") == "descending"
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert page.text_content(first) == "image 00000.png"
        page.get_by_role("button", name="flip_distance").press("Enter")
        assert page.text_content(first) == "image 00017.png"
        page.get_by_role("button", name="novelty_p", exact=True).press("Enter")
        page.evaluate("document.getElementById('box').scrollTop = 1e9")
        page.wait_for_function(
            "document.querySelector('#rows tr:nth-last-child(2) td:nth-child(3)')"
            ".textContent === 'image 49995.png'"
        )
        page.get_by_role("combobox").select_option("novelty_verdict")
        assert page.text_content("#count") == f"49 of {ROWS} rows"
        page.get_by_role("searchbox").fill(f"{largest:05d}")
        assert page.text_content("#count") == f"1 of {ROWS} rows"
        outside = "document.documentElement.scrollWidth > innerWidth"
        assert not page.evaluate(outside)
        browser.close()
    assert seen == []
