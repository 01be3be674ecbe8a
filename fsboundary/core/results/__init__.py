"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.core.results.affine import AffineRank, AffineResiduals
from fsboundary.core.results.amplifications import Amplification
from fsboundary.core.results.base import Result
from fsboundary.core.results.boxes import GuaranteedBoxes
from fsboundary.core.results.comparisons import Comparison
from fsboundary.core.results.coverage import Coverage, CoverageShares
from fsboundary.core.results.faces import RegionFaces
from fsboundary.core.results.features import FeatureBatch
from fsboundary.core.results.flips import FlipPoints
from fsboundary.core.results.guaranteed_hulls import CertifiedClasses
from fsboundary.core.results.hulls import HullProjection, NearestHulls
from fsboundary.core.results.images import CrossedImages, FlipImages
from fsboundary.core.results.inverse import InverseImages
from fsboundary.core.results.morphs import Morph
from fsboundary.core.results.partition import Partition
from fsboundary.core.results.paths import ClassPath
from fsboundary.core.results.region_distances import RegionDistances
from fsboundary.core.results.regions import GuaranteedRegion
from fsboundary.core.results.separation import HullSeparation
from fsboundary.core.results.shares import RegionShares
from fsboundary.core.results.ties import LargestTies, TiePoints
from fsboundary.core.results.vertices import HullVertices
from fsboundary.core.results.yardstick import Extrapolation, LeaveOneOutDistances

__all__ = [
    "AffineRank",
    "AffineResiduals",
    "Amplification",
    "CertifiedClasses",
    "ClassPath",
    "Comparison",
    "Coverage",
    "CoverageShares",
    "CrossedImages",
    "Extrapolation",
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedBoxes",
    "GuaranteedRegion",
    "HullProjection",
    "HullSeparation",
    "HullVertices",
    "InverseImages",
    "LargestTies",
    "LeaveOneOutDistances",
    "Morph",
    "NearestHulls",
    "Partition",
    "RegionDistances",
    "RegionFaces",
    "RegionShares",
    "Result",
    "TiePoints",
]
