"""Image classifiers of Hugging Face transformers."""

from __future__ import annotations

import fsboundary as fsb
from fsboundary.plugins import lazy


@fsb.hookimpl
def register_feature_extractors() -> list[fsb.Registration]:
    """Return the extractor."""
    return [
        fsb.Registration(
            "transformers",
            lazy("fsboundary_transformers.extractor:HuggingFace"),
            "Hugging Face classifiers: raw pixels through the image processor, earlier layers",
        )
    ]
