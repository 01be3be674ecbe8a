"""Draw one case of a hull family, run every check and count the statuses."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fsboundary import Status
from fsboundary.plugins.interfaces import HullSolver
from support.flips.checker import Fault

# importing them registers their functions in HULL_FAMILIES
from support.hulls import families, hard_families
from support.hulls.case import HullCase
from support.hulls.checker import check_hulls

__all__ = ["HULL_FAMILIES", "draw_hulls", "examine_hulls", "hard_families"]

HULL_FAMILIES = families.HULL_FAMILIES
NAMES = {int(s): s.name for s in Status}
MEMBERSHIP = {1: "inside", -1: "outside", 0: "undecided"}


def draw_hulls(name: str, seed: int) -> HullCase:
    """Return the case of family `name` for `seed`."""
    return HULL_FAMILIES[name](np.random.default_rng([seed, *name.encode()]))


def examine_hulls(
    case: HullCase, solver: str | HullSolver = "active_set", max_steps: int | None = None
) -> tuple[Counter[str], list[Fault]]:
    """Return counts of statuses and memberships, and every fault of the answer of `solver`."""
    answer = case.project(solver, max_steps=max_steps)
    counts = Counter(NAMES[s] for s in answer["status"].tolist())
    counts += Counter(MEMBERSHIP[m] for m in answer["membership"].tolist())
    counts["rows"] = len(case.queries)
    return counts, check_hulls(case, answer, reduced=solver == "active_set")
