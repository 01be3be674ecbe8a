"""Decision boundaries in feature space: closest boundary points, ties and paths."""

from fsboundary.boundaries.class_path import class_path
from fsboundary.boundaries.flip_points import flip_points
from fsboundary.boundaries.label_balls import label_balls
from fsboundary.boundaries.label_flips import label_flips
from fsboundary.boundaries.region_distances import region_distances
from fsboundary.boundaries.ties import ambiguity, largest_ties, tie_points

__all__ = [
    "ambiguity",
    "class_path",
    "flip_points",
    "label_balls",
    "label_flips",
    "largest_ties",
    "region_distances",
    "tie_points",
]
