"""When a hull solver may stop, seen from how the core grades."""

from __future__ import annotations

SAFETY = 0.5
"""Rows stop at this share of the tolerance, so that grading, which subtracts its own rounding,
does not fail for want of a digit."""

ON_HULL = 1e-10
"""Residuals below this share of the scale are inside: a tenth of what grading calls inside."""
