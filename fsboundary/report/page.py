"""Study of a subject, stage by stage, and its self-contained HTML page."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from fsboundary.core.errors import ReportWarning
from fsboundary.core.files import GENERATOR, check_outputs, printable, write_files
from fsboundary.modes import caller_level
from fsboundary.plot.style import REPORT
from fsboundary.report.clock import Clock
from fsboundary.report.figures import picture_uri
from fsboundary.report.formatting import cell_colour, number
from fsboundary.report.measurements import Subject, measure
from fsboundary.report.plan import expected_stages
from fsboundary.report.sections import SECTIONS
from fsboundary.report.sections.summary.advice import alerts

SCHEMA = 1
"""Version of the layout of the numbers; raised when a key changes its meaning or is removed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Numbers and pictures of a report.

    Attributes
    ----------
    numbers : dict
        ``generator``, ``schema``, ``class_names`` and one entry per section; valid strict JSON.
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
    numbers: dict[str, Any] = {
        "generator": GENERATOR,  # first, because it marks the file as one that may be replaced
        "schema": SCHEMA,
        "class_names": [printable(name) for name in subject.class_names],
    }
    pictures = {}
    for section in SECTIONS:
        with clock.stage(section.title.lower()):
            content = section.compute(measured)
        numbers[section.name], pictures[section.name] = content.numbers, content.pictures
        if section.name == "advice":  # the first section, so before the long work
            for text in alerts(content.numbers):
                clock.alert(text)
    return Study(numbers=numbers, pictures=pictures)


def write_report(
    subject: Subject,
    out: Path,
    *,
    json_path: Path | None = None,
    force: bool = False,
    show_progress: bool = False,
) -> Path:
    """Study a subject and write the page and, if `json_path` is given, the numbers.

    Parameters
    ----------
    subject : Subject
    out : Path
        HTML file; its folder must exist.
    json_path : Path, optional
        JSON file for the numbers.
    force : bool
        Whether files that fsboundary did not write may be replaced; earlier reports always may.
    show_progress : bool

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError
        A file cannot be written, or would replace one that is not a report; raised before any
        work.
    DataError
        The files could not be written, for example because the disk is full; files that were there
        are unchanged.

    Warns
    -----
    ReportWarning
        The accuracy is near chance, or the pixels are not those that the model was trained with;
        before the long work, and on top of the page.
    """
    check_outputs({"out": out, "json_path": json_path}, force=force)
    expected = expected_stages(subject)
    clock = Clock(expected, show_progress=show_progress, on_alert=_warn)
    try:
        study = run_study(subject, clock)
        with clock.stage("figures"):
            figures = draw_figures(study.numbers)
        study.numbers["provenance"]["stages"] = clock.stages()
    finally:
        clock.close()
    contents = {out: render(study, figures)}
    if json_path is not None:
        contents[json_path] = to_json(study.numbers)
    write_files({path: text.encode("utf-8") for path, text in contents.items()}, force=force)
    return out


def _warn(text: str) -> None:
    # to standard error, whatever is shown of the progress; the page has it at its top
    warnings.warn(text, ReportWarning, stacklevel=caller_level())


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
        generator=GENERATOR,
        sections=SECTIONS,
        numbers=study.numbers,
        pictures=pictures,
        figures=figures,
        num=partial(number, study.numbers),
        class_name=lambda k: names[k] if k is not None and k >= 0 else "none",
        cell_colour=cell_colour,
        colour=REPORT.class_colour,
    )
