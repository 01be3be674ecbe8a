"""Reviews: triage, one row per example with every score, and the comparison of models."""

from fsboundary.review.models import compare_models
from fsboundary.review.table import Triage, triage

__all__ = ["Triage", "compare_models", "triage"]
