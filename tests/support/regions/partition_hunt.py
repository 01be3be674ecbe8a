"""One random head and domain, its partition compared with every slow method."""

from __future__ import annotations

from collections import Counter

import fsboundary as fsb
from support.regions.enumeration import disagreements, draw, exact_faults, limits
from support.regions.rational_programs import contradictions


def examine(seed: int) -> tuple[list[str], Counter[str]]:
    """Return the disagreements with enumeration, Qhull and fractions, and the statuses met."""
    head, within = draw(seed)
    found = fsb.partition(head, within)
    faults, seen = disagreements(head, within, found)
    faults += exact_faults(head, within, found)
    return faults + contradictions(head, *limits(head, within), found), seen
