"""Sections of the report, in the order of the page.

A new section needs a module, a template and an entry here.
"""

from __future__ import annotations

from fsboundary.report.sections.attribution.section import Attribution
from fsboundary.report.sections.base import Section
from fsboundary.report.sections.distances import Distances, Pairs
from fsboundary.report.sections.division.section import DivisionSection
from fsboundary.report.sections.extremes import Extremes
from fsboundary.report.sections.hull.section import Hull
from fsboundary.report.sections.pixels.section import Pixels
from fsboundary.report.sections.planes import Planes
from fsboundary.report.sections.provenance import Provenance
from fsboundary.report.sections.summary.advice import Advice
from fsboundary.report.sections.summary.overview import Overview

SECTIONS: tuple[Section, ...] = (
    Advice(),
    Overview(),
    Extremes(),
    Distances(),
    Pairs(),
    Planes(),
    DivisionSection(),
    Hull(),
    Attribution(),
    Pixels(),
    Provenance(),
)
