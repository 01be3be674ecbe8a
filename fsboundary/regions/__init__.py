"""Decision regions of feature space: their partition, sizes and faces, and guaranteed sets."""

from fsboundary.regions.angles import normal_angles
from fsboundary.regions.coverage import coverage, coverage_fractions
from fsboundary.regions.faces import region_faces
from fsboundary.regions.fractions import feature_fractions, region_fractions
from fsboundary.regions.guaranteed_balls import guaranteed_balls, guaranteed_boxes
from fsboundary.regions.guaranteed_hulls import GuaranteedHulls, guaranteed_hulls
from fsboundary.regions.partition import partition

__all__ = [
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
]
