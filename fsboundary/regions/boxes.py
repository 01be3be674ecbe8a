"""Guaranteed boxes: how far every feature may move, each within its own limits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, rows_and_sources
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import GuaranteedBoxes
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.regions.guaranteed_sets import BoxProblems, certain, fair_reach


def guaranteed_boxes(head: LinearHead, features: Float[Tensor, "B d"]) -> GuaranteedBoxes:
    """Return the largest axis-aligned box around each feature, within the domain, of its class.

    All features may move at once, each between its own two limits. The largest box is the one
    whose smallest distance from the feature to a side is as large as it can be, then its next
    smallest, and so on: the solution of a sequence of linear programs, found in closed form. It
    holds the Linf ball of :func:`fsboundary.guaranteed_balls`, and no side of it can be moved
    outwards alone, both up to rounding. (The box with the largest sum of sides would be a corner
    of the constraints, where most features cannot move at all.) A side that no class limits ends
    where the domain does.

    A box is kept only if, for every other class, the margin in the worst corner is above the bound
    of its rounding.

    Parameters
    ----------
    head : LinearHead
    features : Tensor (B, d)
        Any float dtype; computed in float64.

    Returns
    -------
    GuaranteedBoxes

    Raises
    ------
    ArgumentError
        Wrong types or shapes.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    lower = torch.full_like(z, torch.nan)
    upper = lower.clone()
    fine = status == Status.CONVERGED
    step = chunk_rows(2 * max(head.num_features, head.num_classes))
    for k in source[fine].unique().tolist():
        rows = (fine & (source == k)).nonzero()[:, 0]
        for part in chunks(len(rows), step):
            index = rows[part]
            lower[index], upper[index], status[index] = _boxes(head, z[index], k)
    return GuaranteedBoxes(lower=lower, upper=upper, source=source, status=status)


def _boxes(head: LinearHead, z: Tensor, source: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return limits and status of the rows of one class."""
    problems = BoxProblems.of(head, z, source)
    lower, upper, good = certain(problems, fair_reach(problems))
    margin, error = problems.goals()
    whole = ((lower == problems.low) & (upper == problems.high)).all(dim=1)
    status = torch.where(whole, int(Status.UNBOUNDED), int(Status.CONVERGED))
    hidden = (margin <= error).any(dim=1)
    why = torch.where(hidden, int(Status.UNDECIDED), int(Status.INACCURATE))
    return (
        torch.where(good[:, None], lower, torch.nan),
        torch.where(good[:, None], upper, torch.nan),
        torch.where(good, status, why),
    )
