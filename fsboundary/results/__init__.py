"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.results.affine import AffineRank, AffineResiduals
from fsboundary.results.base import Result
from fsboundary.results.boxes import GuaranteedBoxes
from fsboundary.results.comparisons import Comparison
from fsboundary.results.coverage import Coverage, CoverageShares
from fsboundary.results.faces import RegionFaces
from fsboundary.results.features import FeatureBatch
from fsboundary.results.flips import FlipPoints
from fsboundary.results.guaranteed_hulls import CertifiedClasses
from fsboundary.results.hulls import HullProjection, NearestHulls
from fsboundary.results.images import FlipImages
from fsboundary.results.partition import Partition
from fsboundary.results.paths import ClassPath
from fsboundary.results.region_distances import RegionDistances
from fsboundary.results.regions import GuaranteedRegion
from fsboundary.results.separation import HullSeparation
from fsboundary.results.shares import RegionShares
from fsboundary.results.ties import LargestTies, TiePoints
from fsboundary.results.vertices import HullVertices
from fsboundary.results.yardstick import Extrapolation, LeaveOneOutDistances

__all__ = [
    "AffineRank",
    "AffineResiduals",
    "CertifiedClasses",
    "ClassPath",
    "Comparison",
    "Coverage",
    "CoverageShares",
    "Extrapolation",
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedBoxes",
    "GuaranteedRegion",
    "HullProjection",
    "HullSeparation",
    "HullVertices",
    "LargestTies",
    "LeaveOneOutDistances",
    "NearestHulls",
    "Partition",
    "RegionDistances",
    "RegionFaces",
    "RegionShares",
    "Result",
    "TiePoints",
]
