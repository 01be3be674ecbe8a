"""The stages of a report and the time that each takes, for the progress bar.

The seconds are those of ``fsboundary demo`` on one core, from the provenance of its report. Only
their proportions matter: the bar measures how much slower or faster the stages are here.
"""

from __future__ import annotations

from fsboundary.report.clock import Expected
from fsboundary.report.measurements import Subject
from fsboundary.report.sections.pixels.sizes import SECONDS

PER_IMAGE = 0.001
"""Seconds of a forward pass of the demo's network, per image."""

_MODEL = {
    "what to do now": 0.3,
    "noise images": 0.2,
    "attributions": 3.1,
    "comparison of the attributions": 8.9,
}
"""Stages that consist of passes through the model."""

_PIXELS = {
    "flip images": 2.2,
    "inverse images": 7.6,
    "morphs": 4.2,
    "moves of the features": 4.2,
    "certified radii": 2.8,
    "two spaces": 11.5,
    "boundaries in pixel space": 0.1,
}
"""Likewise, in the section that makes itself smaller for slow models."""

_GEOMETRY = {
    "flip points": 0.1,
    "guaranteed balls": 0.01,
    "summary": 0.01,
    "least and most robust images": 0.03,
    "distance to the boundary, by class": 0.01,
    "distances from class to class": 0.01,
    "slices of the feature space": 0.1,
    "regions and facets": 0.5,
    "sizes of the regions": 0.1,
    "guaranteed hulls": 0.4,
    "ambiguous images": 0.1,
    "paths between images": 0.01,
    "decision regions": 0.01,
    "hull of the training set": 1.2,
    "hulls of the classes": 0.9,
    "hulls in fewer dimensions": 2.7,
    "convex hull of the training set": 0.01,
    "pixel attributions": 0.04,
    "provenance": 0.01,
}

_FIGURES = {"figures": 2.7}


def expected_stages(subject: Subject) -> list[Expected]:
    """Return the stages of the report on `subject`, with the time that each is expected to take."""
    training = 0 if subject.train_images is None else len(subject.train_images)
    passes = {
        "features of the training images": PER_IMAGE * training,
        "features of the images": PER_IMAGE * len(subject.images),
    }
    limit = SECONDS / sum(_PIXELS.values())
    return [
        Expected(name=name, seconds=seconds, kind=kind, limit=most)
        for kind, stages, most in (
            ("model", passes | _MODEL, float("inf")),
            ("model", _PIXELS, max(1.0, limit)),
            ("geometry", _GEOMETRY, float("inf")),
            ("figures", _FIGURES, float("inf")),
        )
        for name, seconds in stages.items()
    ]
