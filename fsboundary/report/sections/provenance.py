"""Section on the provenance of the numbers."""

from __future__ import annotations

import platform
from typing import Any, final

import torch

from fsboundary import plugins
from fsboundary._version import __version__
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.base import Content, Section


@final
class Provenance(Section):
    """Versions, extractor, finder, hull solver, layer, domain, fingerprint and times."""

    name = "provenance"
    title = "Provenance"

    def compute(self, measured: Measurements) -> Content:
        """Return the facts needed to reproduce the report; the study adds the times."""
        subject = measured.subject
        numbers: dict[str, Any] = {
            "versions": {
                "fsboundary": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "finder": _plugin(subject.finder),
            "hull_solver": None if measured.train is None else _plugin(subject.hull_solver),
            "extractor": _plugin(subject.space.extractor),
            "notes": subject.space.notes(),
            "fingerprint": measured.batch.fingerprint,
            "head": repr(measured.head),
            "seed": SEED,
            "facts": subject.facts,
            "stages": [],
            "threads": torch.get_num_threads(),
        }
        return Content(numbers=plain(numbers))


def _plugin(instance: object) -> dict[str, Any]:
    return plugins.identify(instance)._asdict()
