"""Where the decision boundaries are: the closest boundary points of features."""

from fsboundary.boundaries.flip_points import find_flip_points

__all__ = ["find_flip_points"]
