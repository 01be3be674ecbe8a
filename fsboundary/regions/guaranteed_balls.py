"""Guaranteed balls: how far a feature may move before its class can change.

Guaranteed boxes: how far every feature may move, each within its own limits.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, row_status, rows_and_sources
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import GuaranteedBalls, GuaranteedBoxes
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.nearest import linf_radii, nearest_classes
from fsboundary.geometry.regions.guaranteed_sets import BoxProblems, certain, fair_reach


def guaranteed_balls(
    head: LinearHead, features: Float[Tensor, "B d"], norm: Literal["l2", "linf"] = "l2"
) -> GuaranteedBalls:
    """Return the open ball around each feature, within the domain, that keeps its class.

    The radius is a lower bound, not an estimate: the smallest certified lower bound of the
    distances to all other classes (design.md, section 1, "Guaranteed ball"), lowered by the
    rounding of its own evaluation.

    Parameters
    ----------
    head : LinearHead
    features : Tensor (B, d)
        Any float dtype; computed in float64.
    norm : "l2" or "linf"

    Returns
    -------
    GuaranteedBalls
        Radius in feature units; +inf and UNBOUNDED where no other class can be reached; NaN with
        OUTSIDE_DOMAIN or NOT_FINITE where the row has no guarantee.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or another norm.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    if norm not in ("l2", "linf"):
        raise ArgumentError("norm", repr(norm), '"l2" or "linf"', "choose one of the two")
    head = head.to(z.device)
    status = row_status(head, z)
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
    rows = z[fine]
    source = head.predict(rows)
    if norm == "l2":
        found = nearest_classes(head, rows, source, keeps=True)
    else:
        found = linf_radii(head, rows, source)
    radius = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    active = torch.full((len(z),), -1, dtype=torch.int64, device=z.device)
    none = torch.isinf(found.radius)
    radius[fine] = found.radius
    active[fine] = torch.where(none, -1, found.target)
    status[fine] = torch.where(none, int(Status.UNBOUNDED), int(Status.CONVERGED))
    centre = torch.where(torch.isfinite(z), z, torch.nan)
    return GuaranteedBalls(
        centre=centre, radius=radius, norm=norm, active_class=active, status=status
    )


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
