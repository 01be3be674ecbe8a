"""Uses: what feature space and pixels say of the same images."""

from fsboundary.analysis.table import Measure, TwoSpaces
from fsboundary.analysis.two_spaces import two_spaces

__all__ = ["Measure", "TwoSpaces", "two_spaces"]
