"""From a model and images to numbers and pictures, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from fsboundary.report.clock import Clock
from fsboundary.report.measurements import Subject, measure
from fsboundary.report.sections import SECTIONS

SCHEMA = 1
"""Version of the layout of the numbers; raised when a key changes its meaning or goes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """What a report shows.

    Attributes
    ----------
    numbers : dict
        ``schema``, ``class_names`` and one entry for each section; strict JSON can hold it.
    pictures : dict of str to dict of str to Tensor
        Section name, picture name, image or films in [0, 1], as
        :class:`~fsboundary.report.sections.base.Content` has them.
    """

    numbers: dict[str, Any]
    pictures: dict[str, dict[str, Tensor]]


def run_study(subject: Subject, clock: Clock) -> Study:
    """Measure a subject and compute every section, one stage each.

    Parameters
    ----------
    subject : Subject
    clock : Clock
        Shows and times the stages.

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
