"""Captum integration: distances that its methods can explain, and further methods."""

from fsboundary.attr.comparison.compare import compare
from fsboundary.attr.comparison.run_methods import attribute_methods, compare_methods
from fsboundary.attr.comparison.visualization import draw_attributions
from fsboundary.attr.concept import HullClassifier
from fsboundary.attr.distances.boundary import BoundaryDistance
from fsboundary.attr.distances.hull import ClassHullDistance, HullDistance
from fsboundary.attr.influence import HullInfluence, Supports
from fsboundary.attr.methods.boundary_direction import BoundaryDirection
from fsboundary.attr.methods.flip_image_attribution import FlipImageAttribution
from fsboundary.attr.methods.layer_boundary_direction import LayerBoundaryDirection
from fsboundary.attr.robust import BoundaryPush

__all__ = [
    "BoundaryDirection",
    "BoundaryDistance",
    "BoundaryPush",
    "ClassHullDistance",
    "FlipImageAttribution",
    "HullClassifier",
    "HullDistance",
    "HullInfluence",
    "LayerBoundaryDirection",
    "Supports",
    "attribute_methods",
    "compare",
    "compare_methods",
    "draw_attributions",
]
