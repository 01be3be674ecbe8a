"""Pictures of planes, distances and hulls with matplotlib, without pyplot or global state."""

from fsboundary.plot.distances import distances, robustness_curve
from fsboundary.plot.planes import plane

__all__ = [
    "distances",
    "plane",
    "robustness_curve",
]
