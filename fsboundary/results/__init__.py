"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.results.base import Result
from fsboundary.results.features import FeatureBatch
from fsboundary.results.flips import FlipPoints
from fsboundary.results.hulls import HullProjection
from fsboundary.results.images import FlipImages
from fsboundary.results.regions import GuaranteedRegion

__all__ = [
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedRegion",
    "HullProjection",
    "Result",
]
