"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.results.base import Result
from fsboundary.results.features import FeatureBatch
from fsboundary.results.flips import FlipPoints
from fsboundary.results.hulls import HullProjection
from fsboundary.results.images import FlipImages
from fsboundary.results.paths import ClassPath
from fsboundary.results.region_distances import RegionDistances
from fsboundary.results.regions import GuaranteedRegion
from fsboundary.results.ties import LargestTies, TiePoints

__all__ = [
    "ClassPath",
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedRegion",
    "HullProjection",
    "LargestTies",
    "RegionDistances",
    "Result",
    "TiePoints",
]
