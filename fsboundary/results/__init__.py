"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.results.affine import AffineRank, AffineResiduals
from fsboundary.results.base import Result
from fsboundary.results.comparisons import Comparison
from fsboundary.results.features import FeatureBatch
from fsboundary.results.flips import FlipPoints
from fsboundary.results.hulls import HullProjection, NearestHulls
from fsboundary.results.images import FlipImages
from fsboundary.results.partition import Partition, RegionShares
from fsboundary.results.paths import ClassPath
from fsboundary.results.region_distances import RegionDistances
from fsboundary.results.regions import GuaranteedRegion
from fsboundary.results.separation import HullSeparation
from fsboundary.results.ties import LargestTies, TiePoints
from fsboundary.results.vertices import HullVertices
from fsboundary.results.yardstick import Extrapolation, LeaveOneOutDistances

__all__ = [
    "AffineRank",
    "AffineResiduals",
    "ClassPath",
    "Comparison",
    "Extrapolation",
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedRegion",
    "HullProjection",
    "HullSeparation",
    "HullVertices",
    "LargestTies",
    "LeaveOneOutDistances",
    "NearestHulls",
    "Partition",
    "RegionDistances",
    "RegionShares",
    "Result",
    "TiePoints",
]
