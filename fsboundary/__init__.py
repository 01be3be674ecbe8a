"""Certified decision boundaries of deep classifiers, in their feature space.

Names are loaded on first use: ``import fsboundary`` imports neither torch nor a plugin, and
touches no file or device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fsboundary._version import __version__

if TYPE_CHECKING:
    from fsboundary import analysis, attr, pixels, plot, plugins, scores, testing
    from fsboundary.banks import FeatureBank, map_rows
    from fsboundary.boundaries import (
        ambiguity,
        class_path,
        flip_points,
        label_balls,
        label_flips,
        largest_ties,
        region_distances,
        tie_points,
    )
    from fsboundary.certificates import export_certificates, write_verifier
    from fsboundary.core.domain import Domain
    from fsboundary.core.errors import (
        ArgumentError,
        DataError,
        FsboundaryError,
        HeadError,
        HeadMismatchError,
        PluginError,
        PluginWarning,
        StatusError,
    )
    from fsboundary.core.heads import LinearHead, MultiLabelHead
    from fsboundary.core.results import (
        AccuracyEstimate,
        AffineRank,
        AffineResiduals,
        Amplification,
        CertifiedClasses,
        CertifiedPixels,
        ClassPath,
        Coverage,
        CoverageFractions,
        Drift,
        Extrapolation,
        FeatureBatch,
        FlipPoints,
        GuaranteedBalls,
        GuaranteedBoxes,
        HullProjection,
        HullSeparation,
        HullVertices,
        InverseImages,
        LabelBalls,
        LabelFlips,
        LargestTies,
        LeaveOneOutDistances,
        ModelComparison,
        Morph,
        NearestHulls,
        Partition,
        RegionDistances,
        RegionFaces,
        RegionFractions,
        Scores,
        TiePoints,
    )
    from fsboundary.core.status import Status
    from fsboundary.hulls import (
        affine_rank,
        affine_residuals,
        class_hull_distances,
        extrapolation,
        hull_projection,
        hull_separation,
        hull_vertices,
        leave_one_out_distances,
        nearest_hulls,
    )
    from fsboundary.models.new_heads import logistic_head, two_class_head
    from fsboundary.plugins.hookspecs import hookimpl
    from fsboundary.plugins.interfaces import (
        BodyBounds,
        BoundaryFinder,
        FeatureExtractor,
        HullSolver,
        ImageBoundaryFinder,
        LinearFunctions,
        Registration,
    )
    from fsboundary.regions import (
        GuaranteedHulls,
        coverage,
        coverage_fractions,
        feature_fractions,
        guaranteed_balls,
        guaranteed_boxes,
        guaranteed_hulls,
        normal_angles,
        partition,
        region_faces,
        region_fractions,
    )
    from fsboundary.review import Triage, compare_models, triage
    from fsboundary.scores import Reference
    from fsboundary.space import FeatureSpace

_MODULE_NAMES = {
    "banks": ("FeatureBank", "map_rows"),
    "boundaries": (
        "ambiguity",
        "class_path",
        "flip_points",
        "label_balls",
        "label_flips",
        "largest_ties",
        "region_distances",
        "tie_points",
    ),
    "certificates": ("export_certificates", "write_verifier"),
    "models.new_heads": ("logistic_head", "two_class_head"),
    "core.domain": ("Domain",),
    "core.errors": (
        "ArgumentError",
        "DataError",
        "FsboundaryError",
        "HeadError",
        "HeadMismatchError",
        "PluginError",
        "PluginWarning",
        "StatusError",
    ),
    "core.heads": ("LinearHead", "MultiLabelHead"),
    "plugins.hookspecs": ("hookimpl",),
    "hulls": (
        "affine_rank",
        "affine_residuals",
        "class_hull_distances",
        "extrapolation",
        "hull_separation",
        "hull_vertices",
        "leave_one_out_distances",
        "nearest_hulls",
        "hull_projection",
    ),
    "plugins.interfaces": (
        "BodyBounds",
        "BoundaryFinder",
        "FeatureExtractor",
        "HullSolver",
        "ImageBoundaryFinder",
        "LinearFunctions",
        "Registration",
    ),
    "regions": (
        "GuaranteedHulls",
        "coverage",
        "coverage_fractions",
        "feature_fractions",
        "guaranteed_balls",
        "guaranteed_boxes",
        "guaranteed_hulls",
        "normal_angles",
        "partition",
        "region_faces",
        "region_fractions",
    ),
    "core.results": (
        "AccuracyEstimate",
        "AffineRank",
        "AffineResiduals",
        "Amplification",
        "CertifiedClasses",
        "CertifiedPixels",
        "ClassPath",
        "Coverage",
        "CoverageFractions",
        "Drift",
        "Extrapolation",
        "FeatureBatch",
        "FlipPoints",
        "GuaranteedBoxes",
        "GuaranteedBalls",
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
        "Scores",
        "TiePoints",
    ),
    "review": ("Triage", "compare_models", "triage"),
    "scores": ("Reference",),
    "space": ("FeatureSpace",),
    "core.status": ("Status",),
}
# the same names as above, for run time; a test checks that both lists agree with __all__
_MODULE_OF = {name: module for module, names in _MODULE_NAMES.items() for name in names}
_SUBMODULES = ("analysis", "attr", "pixels", "plot", "plugins", "scores", "testing")

__all__ = [
    "AccuracyEstimate",
    "AffineRank",
    "AffineResiduals",
    "Amplification",
    "ArgumentError",
    "BodyBounds",
    "BoundaryFinder",
    "CertifiedClasses",
    "CertifiedPixels",
    "ClassPath",
    "Coverage",
    "CoverageFractions",
    "DataError",
    "Domain",
    "Drift",
    "Extrapolation",
    "FeatureBank",
    "FeatureBatch",
    "FeatureExtractor",
    "FeatureSpace",
    "FlipPoints",
    "FsboundaryError",
    "GuaranteedBalls",
    "GuaranteedBoxes",
    "GuaranteedHulls",
    "HeadError",
    "HeadMismatchError",
    "HullProjection",
    "HullSeparation",
    "HullSolver",
    "HullVertices",
    "ImageBoundaryFinder",
    "InverseImages",
    "LabelBalls",
    "LabelFlips",
    "LargestTies",
    "LeaveOneOutDistances",
    "LinearFunctions",
    "LinearHead",
    "ModelComparison",
    "Morph",
    "MultiLabelHead",
    "NearestHulls",
    "Partition",
    "PluginError",
    "PluginWarning",
    "Reference",
    "RegionDistances",
    "RegionFaces",
    "RegionFractions",
    "Registration",
    "Scores",
    "Status",
    "StatusError",
    "TiePoints",
    "Triage",
    "__version__",
    "affine_rank",
    "affine_residuals",
    "ambiguity",
    "analysis",
    "attr",
    "class_hull_distances",
    "class_path",
    "compare_models",
    "coverage",
    "coverage_fractions",
    "export_certificates",
    "extrapolation",
    "feature_fractions",
    "flip_points",
    "guaranteed_balls",
    "guaranteed_boxes",
    "guaranteed_hulls",
    "hookimpl",
    "hull_projection",
    "hull_separation",
    "hull_vertices",
    "label_balls",
    "label_flips",
    "largest_ties",
    "leave_one_out_distances",
    "logistic_head",
    "map_rows",
    "nearest_hulls",
    "normal_angles",
    "partition",
    "pixels",
    "plot",
    "plugins",
    "region_distances",
    "region_faces",
    "region_fractions",
    "scores",
    "testing",
    "tie_points",
    "triage",
    "two_class_head",
    "write_verifier",
]


def __getattr__(name: str) -> Any:
    """Load `name` from the module that defines it and cache it (PEP 562)."""
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
