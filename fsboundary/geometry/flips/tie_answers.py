"""Tie problems, solved and graded chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.flips.certify import grade_solutions
from fsboundary.geometry.flips.dual_search import Proofs, search
from fsboundary.geometry.flips.tie_problems import TieProblems, tie_start

_PROGRAMS = 2000
"""Linear programs a call may spend on proofs that classes cannot tie, each milliseconds for ten
classes."""

Make = Callable[[slice], tuple[TieProblems, Tensor]]
"""The problems of a slice and the source (P,) of each row."""


def answer_ties(
    head: LinearHead, total: int, make: Make, *, ties: int, rtol: float, max_steps: int
) -> dict[str, Tensor]:
    """Return what is certified of `total` tie problems, by name, as in ``results.TiePoints``.

    Parameters
    ----------
    head : LinearHead
    total : int
    make : callable
        Makes the problems when they are needed, so that no table of all of them exists.
    ties : int
        Classes that tie, at most: each step solves a system of that size for every problem.
    rtol, max_steps
        As for :func:`fsboundary.geometry.flips.certify.grade_solutions`.
    """
    proofs = Proofs(head, _PROGRAMS)
    size = chunk_rows(max(head.num_features, head.num_classes, ties * ties))
    # an empty batch has one empty chunk, which gives every field its shape
    pieces = list(chunks(total, size)) or [slice(0, 0)]
    parts = [_answer(*make(part), proofs, rtol, max_steps) for part in pieces]
    width = max((p["active"].shape[1] for p in parts), default=1)
    for p in parts:
        lack = width - p["active"].shape[1]
        p["active"] = torch.nn.functional.pad(p["active"], (0, lack), value=-1)
        p["multipliers"] = torch.nn.functional.pad(p["multipliers"], (0, lack))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _answer(
    problems: TieProblems, source: Tensor, proofs: Proofs, rtol: float, max_steps: int
) -> dict[str, Tensor]:
    """Return the graded answers of one chunk."""
    found = search(problems, tie_start(problems, source), proofs, rtol, max_steps)
    # an overflow: 0 is admissible and proves nothing
    lam = found.multipliers.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    grade = grade_solutions(
        problems, found.points, lam, found.steps, rtol=rtol, max_steps=max_steps
    )
    return {
        "points": grade.points,
        "distance": grade.distance,
        "lower_bound": grade.lower_bound,
        "gap": grade.gap,
        "violation": grade.violation,
        "anchor": problems.anchor,
        "active": grade.active,
        "multipliers": grade.multipliers,
        "status": grade.status,
        "steps": found.steps,
    }
