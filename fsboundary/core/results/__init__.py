"""Frozen result classes: named data, no mathematics beyond slicing."""

import torch

from fsboundary.core.results.base import Result, Table
from fsboundary.core.results.boundaries import (
    ClassPath,
    FlipPoints,
    LabelFlips,
    LargestTies,
    RegionDistances,
    TiePoints,
)
from fsboundary.core.results.comparison import Comparison, ModelComparison
from fsboundary.core.results.features import FeatureBatch
from fsboundary.core.results.hulls import (
    AffineRank,
    AffineResiduals,
    Extrapolation,
    HullProjection,
    HullSeparation,
    HullVertices,
    LeaveOneOutDistances,
    NearestHulls,
)
from fsboundary.core.results.partition import Partition
from fsboundary.core.results.pixels import (
    Amplification,
    CertifiedPixels,
    CrossedImages,
    FlipImages,
    InverseImages,
    Morph,
    SegmentClasses,
    SmoothedClasses,
    SmoothedDistances,
)
from fsboundary.core.results.regions import (
    CertifiedClasses,
    Coverage,
    CoverageFractions,
    GuaranteedBalls,
    GuaranteedBoxes,
    LabelBalls,
    RegionFaces,
    RegionFractions,
)
from fsboundary.core.results.scores import AccuracyEstimate, Drift, Scores
from fsboundary.core.status import Status

__all__ = [
    "AccuracyEstimate",
    "AffineRank",
    "AffineResiduals",
    "Amplification",
    "CertifiedClasses",
    "CertifiedPixels",
    "ClassPath",
    "Comparison",
    "Coverage",
    "CoverageFractions",
    "CrossedImages",
    "Drift",
    "Extrapolation",
    "FeatureBatch",
    "FlipImages",
    "FlipPoints",
    "GuaranteedBalls",
    "GuaranteedBoxes",
    "HullProjection",
    "HullSeparation",
    "HullVertices",
    "InverseImages",
    "LabelBalls",
    "LabelFlips",
    "LargestTies",
    "LeaveOneOutDistances",
    "ModelComparison",
    "Morph",
    "NearestHulls",
    "Partition",
    "RegionDistances",
    "RegionFaces",
    "RegionFractions",
    "Result",
    "Scores",
    "SegmentClasses",
    "SmoothedClasses",
    "SmoothedDistances",
    "Table",
    "TiePoints",
]

# named data only, so ``torch.load(..., weights_only=True)`` may create them
_names = (name for name in __all__ if name not in ("Result", "Table"))
torch.serialization.add_safe_globals([Status, *(globals()[name] for name in _names)])
