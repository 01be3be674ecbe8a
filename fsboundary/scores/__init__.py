"""Scores of examples: novel, untrustworthy, mislabelled, fragile; and of sets: accuracy, drift."""

from fsboundary.scores.pixel_margin import pixel_margin
from fsboundary.scores.reference import Reference
from fsboundary.scores.row_scores import label_issues, novelty, trust
from fsboundary.scores.set_scores import drift, estimate_accuracy

__all__ = [
    "Reference",
    "drift",
    "estimate_accuracy",
    "label_issues",
    "novelty",
    "pixel_margin",
    "trust",
]
