"""The demo's report in the system's Chromium, on a wide and on a narrow screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.needs_chromium

FLAGS = [
    "--no-sandbox",  # it cannot be had as root in a container; the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

TEXTS = """() => [...document.querySelectorAll('body *')]
  .filter(e => e.tagName !== 'SUP' && e.checkVisibility()
    && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => [parseFloat(getComputedStyle(e).fontSize), e.textContent.trim().slice(0, 40)])"""

PICTURES = "() => [...document.images].map(i => [i.complete && i.naturalWidth, i.alt])"

OUTSIDE = """() => [...document.querySelectorAll('body *')]
  .filter(e => e.checkVisibility() && !e.closest('.scroll, nav')
    && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 80))"""


CONTRASTS = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = e => {
    for (; e; e = e.parentElement) {
      const style = getComputedStyle(e), colour = parse(style.backgroundColor);
      if (style.backgroundImage.startsWith('linear-gradient(135deg')) return null;
      if (colour.length === 3 || colour[3] === 1) return colour;
      if (colour[3] > 0) return null;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('main *, footer *, nav *')) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
      continue;
    const paper = under(e);
    if (!paper) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(paper)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""
"""Contrast of each text with the opaque colour under it, by the formula of WCAG."""

SCALES = """() => [...document.querySelectorAll('.multiples img, .all img')]
  .map(i => i.getBoundingClientRect().width / i.naturalWidth)"""

CLOSED = """() => [...document.querySelectorAll('details:not([open]) > :not(summary)')]
  .filter(e => !e.checkVisibility({contentVisibilityAuto: true})
    || e.getBoundingClientRect().height === 0).length"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def tab(browser: Browser, width: int, demo_report: tuple[Path, Path]) -> Iterator[Page]:
    """Open the demo's report; fail afterwards on any complaint or outside request."""
    seen: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:"))
            else seen.append(f"request: {request.url}")
        ),
    )
    page.goto(demo_report[0].as_uri(), wait_until="load")
    yield page
    page.close()
    assert seen == []


def test_every_picture_is_loaded(tab: Page) -> None:
    pictures = tab.evaluate(PICTURES)
    assert len(pictures) >= 12 + 1 + 10 + 3 * 4 + 3 + 6 * 4 + 1
    assert [alt for wide, alt in pictures if not wide] == []
    assert all(alt for _, alt in pictures)


def test_nothing_is_wider_than_the_screen(tab: Page, width: int) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE) == []


def test_text_is_large_enough(tab: Page) -> None:
    assert tab.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    texts = tab.evaluate(TEXTS)
    assert len(texts) > 200
    assert [text for size, text in texts if size < 14] == []


def test_table_opens_and_scrolls_in_its_own_frame(tab: Page, width: int) -> None:
    tab.get_by_text("The same as a table").click()
    frame = tab.get_by_role("region", name="Distances by class")
    assert frame.is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    overflows = frame.evaluate("e => e.scrollWidth > e.clientWidth")
    assert overflows == (width < 1000)


def test_menu_leads_to_every_section(tab: Page) -> None:
    links = tab.get_by_role("navigation").get_by_role("link")
    assert links.count() >= 7
    for place in range(links.count()):
        target = links.nth(place).get_attribute("href")
        assert tab.locator(f"{target} h2").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_contrast_with_their_background(tab: Page, scheme: Literal["light", "dark"]) -> None:
    tab.emulate_media(color_scheme=scheme)
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 200
    # WCAG 2.2, level AA, for text of this size
    assert [text for contrast, text in found if contrast < 4.5] == []
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 3 * 128) == (scheme == "light")


def test_histograms_are_not_made_small(tab: Page) -> None:
    scales = tab.evaluate(SCALES)
    assert len(scales) == 11
    # their texts have 8 points, which a smaller picture would make too small to read
    assert min(scales) > 0.9


def test_what_is_closed_is_printed(tab: Page) -> None:
    assert tab.evaluate(CLOSED) > 5
    tab.emulate_media(media="print", color_scheme="dark")
    tab.wait_for_function("matchMedia('print').matches")
    tab.wait_for_function(f"({CLOSED})() === 0")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(29, 39, 51)"


def test_a_table_shows_that_it_goes_on(tab: Page) -> None:
    attached = tab.evaluate(
        "() => getComputedStyle(document.querySelector('.scroll')).backgroundAttachment"
    )
    assert attached == "local, local, scroll, scroll, scroll"
