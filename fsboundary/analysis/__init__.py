"""Analyses built on the other functions: the comparison of pixel space and feature space."""

from fsboundary.analysis.table import Measure, TwoSpaces
from fsboundary.analysis.two_spaces import two_spaces

__all__ = ["Measure", "TwoSpaces", "two_spaces"]
