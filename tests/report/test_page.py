"""The page: the numbers of the JSON and no others, all texts escaped, nothing from outside."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch

from fsboundary.core import files
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import GENERATOR
from fsboundary.report import page as page_module
from fsboundary.report.formatting import look_up, plain
from fsboundary.report.page import Study, draw_figures, to_json, write_report
from fsboundary.report.plan import expected_stages
from fsboundary.report.sections import SECTIONS
from support.report import Page, read, tiny_page, tiny_subject

pytestmark = pytest.mark.filterwarnings("ignore::fsboundary.core.errors.ReportWarning")
"""Networks without training are near chance."""


def test_every_number_is_that_of_the_json(page: Page) -> None:
    assert len(page.data) > 100
    for path, value, text in page.data:
        assert json.loads(value) == look_up(page.numbers, path), path
        assert text.strip(), path


@pytest.mark.parametrize(
    "section",
    [
        "header",
        "overview",
        "extremes",
        "pairs",
        "division",
        "hull",
        "attribution",
        "pixels",
        "footer",
    ],
)
def test_words_hold_no_number_of_their_own(page: Page, section: str) -> None:
    assert page.text[section]
    assert re.findall(r"\d", page.text[section]) == []


def test_another_number_gives_another_page(page: Page) -> None:
    numbers = copy.deepcopy(page.numbers)
    numbers["overview"]["certificates"]["certified"] = 123456
    numbers["overview"]["labels"]["accuracy"] = 0.123
    again = read(Study(numbers=numbers, pictures=page.study.pictures))
    shown = [text for path, _, text in again.data if path.startswith("overview.")]
    assert "123,456" in shown
    assert "12.3 %" in shown


def test_numbers_are_strict_json(page: Page) -> None:
    text = json.dumps(page.numbers, allow_nan=False)
    assert json.loads(text, parse_constant=pytest.fail) == page.numbers
    assert list(page.numbers) == ["generator", "schema", "class_names", *(s.name for s in SECTIONS)]


def test_texts_are_escaped() -> None:
    evil = "<script>alert('x')</script>"
    page = tiny_page(
        class_names=(evil, "bee & co", '"cat"', "dog $x$ \\frac", "eel"),
        title=f"{evil} title",
        facts={evil: evil},
        file_names=tuple(f'{k}" onerror="alert(1)' for k in range(40)),
    )
    assert "<script" not in page.html
    assert "&lt;script&gt;" in page.html
    assert "bee &amp; co" in page.html
    assert 'onerror="alert' not in page.html
    assert evil in page.text["pairs"]
    for section in ("advice", "extremes", "planes", "division", "hull", "attribution", "pixels"):
        assert 'onerror="alert(1)' in page.text[section], "files are named in the visible text"


class _Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\u202eb\x00", r"a\u202eb\x00"),
        (["\udcff"], [r"\xff"]),
        ({"\n": {"\u2066": "é"}}, {r"\n": {r"\u2066": "é"}}),
        (_Odd(), "an object of type _Odd"),
        (_Odd, f"{__name__}._Odd"),
        (test_texts_are_escaped, f"{__name__}.test_texts_are_escaped"),
        ([].append, "None.list.append"),
        (object(), "<object object>"),
    ],
)
def test_texts_of_objects_are_printable_and_repeat(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_nothing_outside_is_named(page: Page) -> None:
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page.html) == []
    assert re.findall(r"https?:|@import|url\(|<script|<link|<iframe", page.html) == []


def test_every_picture_has_a_text(page: Page) -> None:
    pictures = re.findall(r"<img[^>]*>", page.html)
    assert len(pictures) > 20
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_page_is_labelled(page: Page) -> None:
    assert page.html.startswith("<!doctype html>")
    assert '<html lang="en">' in page.html
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page.html
    assert [f'href="#{s.name}"' in page.html for s in SECTIONS] == [True] * len(SECTIONS)


def test_figures_repeat(page: Page) -> None:
    assert draw_figures(page.numbers) == draw_figures(page.numbers)


def test_certificates_are_stated(page: Page) -> None:
    assert "Certificates." in page.text["overview"]
    paths = {path for path, _, _ in page.data}
    for key in ("certified", "requested", "largest_relative_gap"):
        assert f"overview.certificates.{key}" in paths


def test_provenance_names_what_made_it(page: Page) -> None:
    text, numbers = page.text["provenance"], page.numbers["provenance"]
    parts = (
        torch.__version__,
        "dual_newton",
        "active_set",
        numbers["fingerprint"],
        "for a test",
        "head_input",
        "options head=None",
    )
    for part in parts:
        assert part in text
    assert "bound method" not in page.html


def test_write_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, numbers, subject = tmp_path / "r.html", tmp_path / "r.json", tiny_subject()
    assert write_report(subject, out, json_path=numbers, show_progress=True) == out
    stages = json.loads(numbers.read_text("utf-8"))["provenance"]["stages"]
    assert [stage["name"] for stage in stages][:3] == [
        "features of the training images",
        "features of the images",
        "flip points",
    ]
    within = [
        "regions and facets",
        "sizes of the regions",
        "guaranteed hulls",
        "ambiguous images",
        "paths between images",
        "noise images",
        "hull of the training set",
        "hulls of the classes",
        "hulls in fewer dimensions",
        "attributions",
        "comparison of the attributions",
        "flip images",
        "certified radii",
        "inverse images",
        "morphs",
        "moves of the features",
        "two spaces",
    ]
    outer = [s.title.lower() for s in SECTIONS]
    assert {stage["name"] for stage in stages} == {one.name for one in expected_stages(subject)}
    assert sorted(stage["name"] for stage in stages[4:]) == sorted([*outer, *within, "figures"])
    assert all(stage["seconds"] >= 0 for stage in stages)
    assert "</html>" in out.read_text("utf-8")
    shown = capfd.readouterr().err
    assert "flip points" in shown
    assert "100%" in shown


def test_no_bar_where_none_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_report(tiny_subject(), tmp_path / "r.html")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("failing", ["", "r.html", "r.json"])
def test_a_report_is_replaced_as_a_whole(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(numbers={"generator": GENERATOR, "provenance": {}}, pictures={})
    monkeypatch.setattr(page_module, "run_study", lambda subject, clock: study)
    monkeypatch.setattr(page_module, "draw_figures", lambda numbers: {})
    content = f'<!doctype html>\n<meta name="generator" content="{GENERATOR}">'
    monkeypatch.setattr(page_module, "render", lambda study, figures: content + "new")
    out, numbers = tmp_path / "r.html", tmp_path / "r.json"
    write_report(tiny_subject(), out, json_path=numbers)
    old = out.read_bytes(), numbers.read_bytes()
    content += "second"
    study.numbers["second"] = True
    if failing:
        real = files._stage

        def full(target: Path, new: bytes) -> Path:
            if new and target.name == failing:
                raise OSError(28, "No space left on device")
            return real(target, new)

        monkeypatch.setattr(files, "_stage", full)
        with pytest.raises(DataError, match=f"{failing}: cannot be written"):
            write_report(tiny_subject(), out, json_path=numbers)
        assert (out.read_bytes(), numbers.read_bytes()) == old
    else:
        write_report(tiny_subject(), out, json_path=numbers)
        assert out.read_bytes().endswith(b"secondnew")
        assert json.loads(numbers.read_text())["second"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.json"]


def test_reports_are_recognised(page: Page, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text(page.html)
    (tmp_path / "r.json").write_text(to_json(page.numbers))
    (tmp_path / "other.html").write_text(page.html.replace(GENERATOR, "another program"))
    assert not files.is_foreign(tmp_path / "r.html")
    assert not files.is_foreign(tmp_path / "r.json")
    subject = tiny_subject(images=torch.zeros(0))  # would fail at once if work started
    with pytest.raises(ArgumentError, match="was not written by fsboundary"):
        write_report(subject, tmp_path / "other.html")


def test_missing_folder_is_found_before_work(tmp_path: Path) -> None:
    subject = tiny_subject(images=torch.zeros(0))  # would fail at once if work started
    for out, numbers in (("gone/r.html", "r.json"), ("r.html", "gone/r.json")):
        with pytest.raises(ArgumentError, match="gone"):
            write_report(subject, tmp_path / out, json_path=tmp_path / numbers)
