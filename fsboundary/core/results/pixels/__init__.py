"""Results in pixel space."""

from fsboundary.core.results.pixels.guarantees import (
    CertifiedPixels,
    SegmentClasses,
    SmoothedClasses,
    SmoothedDistances,
)
from fsboundary.core.results.pixels.images import (
    Amplification,
    CrossedImages,
    FlipImages,
    InverseImages,
    Morph,
)

__all__ = [
    "Amplification",
    "CertifiedPixels",
    "CrossedImages",
    "FlipImages",
    "InverseImages",
    "Morph",
    "SegmentClasses",
    "SmoothedClasses",
    "SmoothedDistances",
]
