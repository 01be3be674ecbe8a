"""Regions of feature space: how a head divides it, and what is guaranteed to have one class."""

from fsboundary.regions.angles import normal_angles
from fsboundary.regions.balls import guaranteed_balls
from fsboundary.regions.partitions import partition
from fsboundary.regions.shares import feature_shares, region_shares

__all__ = [
    "feature_shares",
    "guaranteed_balls",
    "normal_angles",
    "partition",
    "region_shares",
]
