"""Convex hulls of feature banks: membership, distance, supports, separation and vertices."""

from fsboundary.hulls.affine import affine_rank, affine_residuals
from fsboundary.hulls.leave_one_out import extrapolation, leave_one_out_distances
from fsboundary.hulls.nearest import nearest_hulls
from fsboundary.hulls.projection import class_hull_distances, hull_projection
from fsboundary.hulls.separation import hull_separation
from fsboundary.hulls.vertices import hull_vertices

__all__ = [
    "affine_rank",
    "affine_residuals",
    "class_hull_distances",
    "extrapolation",
    "hull_projection",
    "hull_separation",
    "hull_vertices",
    "leave_one_out_distances",
    "nearest_hulls",
]
