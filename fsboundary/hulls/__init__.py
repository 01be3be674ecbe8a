"""Questions about the convex hull of a bank: inside or outside, how far, supported by what."""

from fsboundary.hulls.projection import class_hull_distances, project_on_hull

__all__ = ["class_hull_distances", "project_on_hull"]
