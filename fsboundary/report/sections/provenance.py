"""Where the numbers come from."""

from __future__ import annotations

import platform
from typing import final

import torch

from fsboundary import registry
from fsboundary._version import __version__
from fsboundary.report.measure import Measurements
from fsboundary.report.section import Content, Section
from fsboundary.report.values import plain


@final
class Provenance(Section):
    """Versions, finder, layer, domain, fingerprint and times."""

    name = "provenance"
    title = "Provenance"

    def compute(self, measured: Measurements) -> Content:
        """Return what is needed to make the report again; the study adds the times."""
        subject = measured.subject
        finder = registry.identify(subject.finder)
        numbers = {
            "versions": {
                "fsboundary": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "finder": {
                "name": finder.name,
                "distribution": finder.distribution,
                "version": finder.version,
                "options": finder.options,
            },
            "notes": subject.space.notes(),
            "fingerprint": measured.batch.fingerprint,
            "head": repr(measured.head),
            "seed": None,  # nothing in these sections is drawn at random
            "facts": subject.facts,
            "stages": [],
            "threads": torch.get_num_threads(),
        }
        return Content(numbers=plain(numbers))
