"""One case through every check, and counts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fsboundary import Status
from fsboundary.plugins.interfaces import BoundaryFinder

# importing them enters their functions in FAMILIES
from support.flips import families, hard_families
from support.flips.ball_checker import attack, check_balls, check_nearest
from support.flips.case import Case
from support.flips.checker import Fault, check_flips

__all__ = ["FAMILIES", "draw", "examine", "examine_flips", "hard_families"]

FAMILIES = families.FAMILIES
NAMES = {int(s): s.name for s in Status}


def draw(name: str, seed: int) -> Case:
    """Return the case of a family with its own seed."""
    return FAMILIES[name](np.random.default_rng([seed, *name.encode()]))


def examine_flips(
    case: Case, finder: str | BoundaryFinder = "dual_newton", max_steps: int | None = None
) -> tuple[Counter[str], list[Fault]]:
    """Return counts of statuses and every fault of the flip points of `finder`."""
    answer = case.flips(finder=finder, max_steps=max_steps)
    counts = Counter(NAMES[s] for s in answer["status"].ravel().tolist())
    faults = check_flips(case, answer)
    if isinstance(case.targets, str) and case.targets == "nearest":
        faults += check_nearest(case, answer)
    return counts, faults


def examine(case: Case, seed: int) -> tuple[Counter[str], list[Fault]]:
    """Return the same with guaranteed balls in both norms, checked and attacked."""
    counts, faults = examine_flips(case)
    generator = np.random.default_rng(seed)
    for norm in ("l2", "linf"):
        balls = case.balls(norm)
        counts["balls"] += len(balls["radius"])
        faults += check_balls(case, balls, norm)
        faults += attack(case, balls, norm, 16, generator)
    return counts, faults
