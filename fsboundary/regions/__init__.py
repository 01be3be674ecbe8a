"""Regions of feature space: how a head divides it, and what is guaranteed to have one class."""

from fsboundary.regions.angles import normal_angles
from fsboundary.regions.coverage import coverage, coverage_shares
from fsboundary.regions.faces import region_faces
from fsboundary.regions.guaranteed_balls import guaranteed_balls, guaranteed_boxes
from fsboundary.regions.guaranteed_hulls import GuaranteedHulls, guaranteed_hulls
from fsboundary.regions.partition import partition
from fsboundary.regions.shares import feature_shares, region_shares

__all__ = [
    "GuaranteedHulls",
    "coverage",
    "coverage_shares",
    "feature_shares",
    "guaranteed_balls",
    "guaranteed_boxes",
    "guaranteed_hulls",
    "normal_angles",
    "partition",
    "region_faces",
    "region_shares",
]
