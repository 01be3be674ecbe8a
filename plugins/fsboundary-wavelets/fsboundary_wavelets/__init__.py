"""Wavelet coefficients as features."""

from __future__ import annotations

import fsboundary as fsb
from fsboundary.plugins import lazy


@fsb.hookimpl
def register_feature_extractors() -> list[fsb.Registration]:
    """Return the extractor."""
    return [
        fsb.Registration(
            "wavelets",
            lazy("fsboundary_wavelets.extractor:Wavelets"),
            "a linear rule on wavelets in place of the model; check its fidelity",
            capabilities=frozenset({"surrogate"}),
        )
    ]
