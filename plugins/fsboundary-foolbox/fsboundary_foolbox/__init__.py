"""Foolbox's minimisation attacks as finders of flip images."""

from __future__ import annotations

import fsboundary as fsb
from fsboundary.registry import lazy


@fsb.hookimpl
def register_boundary_finders() -> list[fsb.Registration]:
    """Return the finder."""
    return [
        fsb.Registration(
            "foolbox",
            lazy("fsboundary_foolbox.finder:Foolbox"),
            "published minimisation attacks, to compare with; some need no gradient",
            capabilities=frozenset({"pixels"}),
        )
    ]
