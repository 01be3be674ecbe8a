"""Pictures of planes, distances and hulls with matplotlib, without pyplot or global state."""

from fsboundary.plot.distances import distances, distances_by_class, robustness_curve
from fsboundary.plot.images import flip_images, hull_support, morph
from fsboundary.plot.matrices import class_matrix, comparison
from fsboundary.plot.neighbours import neighbours
from fsboundary.plot.paths import class_path
from fsboundary.plot.pixel_planes import plane_pixels
from fsboundary.plot.planes import plane

__all__ = [
    "class_matrix",
    "class_path",
    "comparison",
    "distances",
    "distances_by_class",
    "flip_images",
    "hull_support",
    "morph",
    "neighbours",
    "plane",
    "plane_pixels",
    "robustness_curve",
]
