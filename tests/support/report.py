"""Tiny classifiers and studies of them, and a reader of pages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsboundary import plugins
from fsboundary.report import page as report_page
from fsboundary.report.clock import Clock
from fsboundary.report.measurements import Subject
from fsboundary.report.page import Study, draw_figures, render, run_study, to_json
from fsboundary.report.sections import SECTIONS
from fsboundary.space import FeatureSpace

NAMES = ("ant", "bee", "cat", "dog", "eel")


def tiny_model(classes: int = 5, width: int = 7) -> nn.Module:
    """Return a classifier of (B,1,6,6), in training mode, whose features are a ReLU's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(36, width), nn.ReLU(), nn.Linear(width, classes)
        )


def tiny_images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def tiny_subject(**changes: Any) -> Subject:
    """Return 40 images of 5 classes, with any field of the subject changed; also ``model``."""
    model = changes.pop("model", None) or tiny_model()
    images = changes.pop("images", tiny_images(40))
    fields: dict[str, Any] = {
        "space": FeatureSpace(model.eval()),
        "images": images,
        "labels": torch.arange(len(images)) % 5,
        "class_names": NAMES,
        "file_names": None,
        "train_images": tiny_images(20, seed=1),
        "train_labels": torch.arange(20) % 5,
        "finder": plugins.create("boundary_finder", "dual_newton"),
        "hull_solver": plugins.create("hull_solver", "active_set"),
        "batch_size": 16,
        "title": "tiny",
        "facts": {"made": "for a test"},
    }
    return Subject(**fields | changes)


@dataclass
class Page:
    """A study, its page, and what a reader finds there.

    ``data`` holds path in the JSON, value and text of each number; ``text`` holds the text of the
    header and of each section, without its numbers.
    """

    study: Study
    html: str
    data: list[tuple[str, str, str]] = field(default_factory=list)
    text: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Any]:
        return self.study.numbers


class Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.section, self.inside = page, "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("section", "header", "footer"):
            self.section = given.get("id") or tag
            self.page.text[self.section] = ""
        if tag == "data":
            self.page.data.append((given["data-key"] or "", given["value"] or "", ""))
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "data":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            path, value, text = self.page.data[-1]
            self.page.data[-1] = (path, value, text + data)
        elif self.section:
            self.page.text[self.section] += data


class _OpenWords(HTMLParser):
    """Counts the words that are seen before anything is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.closed, self.hidden = 0, 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.closed += tag == "details"
        self.closed -= tag == "summary"
        self.hidden += tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self.closed -= tag == "details"
        self.closed += tag == "summary"
        self.hidden -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        if not self.closed and not self.hidden:
            self.count += len(data.split())


def open_words(html: str) -> int:
    """Return the number of words of a page that are not behind a closed disclosure."""
    reader = _OpenWords()
    reader.feed(html)
    assert (reader.closed, reader.hidden) == (0, 0)
    return reader.count


def read(study: Study) -> Page:
    """Draw, render and read a study, after a passage through strict JSON."""
    study = Study(numbers=json.loads(to_json(study.numbers)), pictures=study.pictures)
    with pytest.MonkeyPatch.context() as patch:
        studied = tuple(section for section in SECTIONS if section.name in study.numbers)
        patch.setattr(report_page, "SECTIONS", studied)
        page = Page(study, render(study, draw_figures(study.numbers)))
    Reader(page).feed(page.html)
    for section in page.text:
        page.text[section] = " ".join(page.text[section].split())
    return page


def tiny_study(*sections: str, **changes: Any) -> Study:
    """Study a tiny subject: all sections, or the named ones.

    The overview and the provenance are always there: the top of the page shows their numbers.
    """
    wanted = {*sections, "overview", "provenance"}
    chosen = tuple(s for s in SECTIONS if not sections or s.name in wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "SECTIONS", chosen)
        return run_study(tiny_subject(**changes), Clock())


def tiny_page(*sections: str, **changes: Any) -> Page:
    """Read the page of :func:`tiny_study`."""
    return read(tiny_study(*sections, **changes))
