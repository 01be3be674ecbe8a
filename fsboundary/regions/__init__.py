"""Regions of feature space that are guaranteed to have one class."""

from fsboundary.regions.balls import guaranteed_balls

__all__ = ["guaranteed_balls"]
