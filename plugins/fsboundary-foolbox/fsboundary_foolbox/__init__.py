"""Foolbox's minimisation attacks as finders of flip images."""

from __future__ import annotations

import fsboundary as fsb
from fsboundary.plugins import lazy


@fsb.hookimpl
def register_boundary_finders() -> list[fsb.Registration]:
    """Return the finders of images and of features."""
    return [
        fsb.Registration(
            "foolbox",
            lazy("fsboundary_foolbox.finder:Foolbox"),
            "published minimisation attacks, for comparison; some need no gradient",
            capabilities=frozenset({"pixels"}),
        ),
        fsb.Registration(
            "foolbox_features",
            lazy("fsboundary_foolbox.features:FoolboxFeatures"),
            "the same attacks on features, for heads that are not linear",
            capabilities=frozenset({"nonlinear_head"}),
        ),
    ]
