"""One random head and domain, its partition held against every slow route."""

from __future__ import annotations

from collections import Counter

import fsboundary as fsb
from support.regions.enumeration import disagreements, draw, exact_faults, limits
from support.regions.rational_programs import contradictions


def examine(seed: int) -> tuple[list[str], Counter[str]]:
    """Return what enumeration, Qhull and fractions see otherwise, and the statuses met."""
    head, within = draw(seed)
    found = fsb.partition(head, within)
    faults, seen = disagreements(head, within, found)
    faults += exact_faults(head, within, found)
    return faults + contradictions(head, *limits(head, within), found), seen
