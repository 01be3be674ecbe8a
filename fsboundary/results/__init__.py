"""Frozen results: data with names, no mathematics beyond slicing."""

from fsboundary.results.affine import AffineRank, AffineResiduals
from fsboundary.results.amplifications import Amplification
from fsboundary.results.base import Result
from fsboundary.results.boxes import GuaranteedBoxes
from fsboundary.results.comparisons import Comparison
from fsboundary.results.coverage import Coverage, CoverageShares
from fsboundary.results.faces import RegionFaces
from fsboundary.results.features import FeatureBatch
from fsboundary.results.flips import FlipPoints
from fsboundary.results.guaranteed_hulls import CertifiedClasses
from fsboundary.results.hulls import HullProjection, NearestHulls
from fsboundary.results.images import CrossedImages, FlipImages
from fsboundary.results.inverse import InverseImages
from fsboundary.results.morphs import Morph
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
