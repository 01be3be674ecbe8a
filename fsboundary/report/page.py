"""Study of a subject, stage by stage, and its self-contained HTML page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.report.clock import Clock
from fsboundary.report.figures import class_colour, picture_uri
from fsboundary.report.formatting import cell_colour, number
from fsboundary.report.measurements import STAGES, Subject, measure
from fsboundary.report.sections import SECTIONS

SCHEMA = 1
"""Version of the layout of the numbers; raised when a key changes its meaning or is removed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Numbers and pictures of a report.

    Attributes
    ----------
    numbers : dict
        ``schema``, ``class_names`` and one entry per section; valid strict JSON.
    pictures : dict of str to dict of str to Tensor
        Images or films in [0, 1] by section name and picture name, as in
        :class:`~fsboundary.report.sections.base.Content`.
    """

    numbers: dict[str, Any]
    pictures: dict[str, dict[str, Tensor]]


def run_study(subject: Subject, clock: Clock) -> Study:
    """Measure a subject and compute every section, one stage each.

    Parameters
    ----------
    subject : Subject
    clock : Clock
        Clock that shows and times the stages.

    Returns
    -------
    Study
    """
    measured = measure(subject, clock)
    numbers: dict[str, Any] = {"schema": SCHEMA, "class_names": list(subject.class_names)}
    pictures = {}
    for section in SECTIONS:
        with clock.stage(section.title.lower()):
            content = section.compute(measured)
        numbers[section.name], pictures[section.name] = content.numbers, content.pictures
    return Study(numbers=numbers, pictures=pictures)


def write_report(
    subject: Subject, out: Path, *, json_path: Path | None = None, show_progress: bool = False
) -> Path:
    """Study a subject and write the page and, if `json_path` is given, the numbers.

    Parameters
    ----------
    subject : Subject
    out : Path
        HTML file; its folder must exist.
    json_path : Path, optional
        JSON file for the numbers.
    show_progress : bool

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError
        The folder of a file does not exist.
    """
    require_folders(out, json_path)
    clock = Clock(STAGES + len(SECTIONS) + 1, show_progress=show_progress)
    try:
        study = run_study(subject, clock)
        with clock.stage("figures"):
            figures = draw_figures(study.numbers)
        study.numbers["provenance"]["stages"] = clock.stages()
    finally:
        clock.close()
    out.write_text(render(study, figures), encoding="utf-8")
    if json_path is not None:
        json_path.write_text(to_json(study.numbers), encoding="utf-8")
    return out


def require_folders(*files: Path | None) -> None:
    """Raise ArgumentError if the folder of a file does not exist, before any work starts."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ArgumentError(
                "out", f"{file}", "a file in a folder that exists", f"create {file.parent} first"
            )


def to_json(numbers: dict[str, Any]) -> str:
    """Return strict JSON: no NaN, no infinity."""
    return json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def draw_figures(numbers: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return data URIs by section name and figure name."""
    names = numbers["class_names"]
    return {section.name: section.draw(numbers[section.name], names) for section in SECTIONS}


def render(study: Study, figures: dict[str, dict[str, str]]) -> str:
    """Return the HTML page."""
    environment = Environment(
        loader=PackageLoader("fsboundary.report"),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    names = study.numbers["class_names"]
    pictures = {
        section: {name: picture_uri(image) for name, image in images.items()}
        for section, images in study.pictures.items()
    }
    return environment.get_template("report.html.j2").render(
        sections=SECTIONS,
        numbers=study.numbers,
        pictures=pictures,
        figures=figures,
        num=partial(number, study.numbers),
        class_name=lambda k: names[k] if k is not None and k >= 0 else "none",
        cell_colour=cell_colour,
        colour=class_colour,
    )
