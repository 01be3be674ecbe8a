"""Triage: one row per example, with every score, on disk while it is computed."""

from fsboundary.review.table import Triage, triage

__all__ = ["Triage", "triage"]
