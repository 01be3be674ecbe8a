"""Captum: distances that its methods can explain, and methods of our own."""

from fsboundary.attr.boundary_direction import BoundaryDirection
from fsboundary.attr.boundary_distance import BoundaryDistance
from fsboundary.attr.comparing import compare
from fsboundary.attr.concepts import HullClassifier
from fsboundary.attr.flip_image_attribution import FlipImageAttribution
from fsboundary.attr.hull_distance import ClassHullDistance, HullDistance
from fsboundary.attr.influences import HullInfluence, Supports
from fsboundary.attr.layer_direction import LayerBoundaryDirection
from fsboundary.attr.pictures import draw_attributions
from fsboundary.attr.pushing import BoundaryPush
from fsboundary.attr.running import attribute_methods, compare_methods

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
