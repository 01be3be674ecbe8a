"""Guaranteed balls and boxes around features: sets in which the class cannot change."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_choice, check_features, check_head, rows_and_sources
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch, GuaranteedBalls, GuaranteedBoxes
from fsboundary.core.rows import TensorOrArray, scatter_rows
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows
from fsboundary.geometry.flips.nearest import linf_radii, nearest_classes
from fsboundary.geometry.regions.guaranteed_sets import BoxProblems, certify_boxes, max_min_extents
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread, map_in_threads


@in_one_thread
@in_standard_modes
def guaranteed_balls(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    norm: Literal["l2", "linf"] = "l2",
) -> GuaranteedBalls:
    """Return the open ball around each feature, within the domain, that keeps its class.

    The radius is a lower bound, not an estimate: the smallest certified lower bound of the
    distances to all other classes (design.md, section 1, "Guaranteed ball"), lowered by the
    rounding of its own evaluation.

    Parameters
    ----------
    head : LinearHead
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    norm : "l2" or "linf"

    Returns
    -------
    GuaranteedBalls
        ``source`` is the class that each ball keeps. Radius in feature units; +inf and UNBOUNDED
        where no other class can be reached; NaN with OUTSIDE_DOMAIN or NOT_FINITE if the row has no
        guarantee.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or another norm.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> balls = fsb.guaranteed_balls(head, z)
    >>> balls.radius.round(decimals=4).tolist(), balls.active_class.tolist()
    ([1.4142], [1])
    >>> fsb.guaranteed_balls(head, z, "linf").radius.round(decimals=4).tolist()
    [1.0]
    """
    check_head(head)
    z = check_features(head.num_features, features)
    check_choice("norm", norm, ("l2", "linf"))
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    rows = z[usable]
    if norm == "l2":
        nearest = nearest_classes(head, rows, source[usable], allow_ties=True)
    else:
        nearest = linf_radii(head, rows, source[usable])
    unbounded = torch.isinf(nearest.radius)
    active = torch.where(unbounded, -1, nearest.target)
    status[usable] = torch.where(unbounded, int(Status.UNBOUNDED), int(Status.CONVERGED))
    return GuaranteedBalls(
        centre=torch.where(torch.isfinite(z), z, torch.nan),
        radius=scatter_rows(nearest.radius, usable, len(z)),
        norm=norm,
        source=source,
        active_class=scatter_rows(active, usable, len(z), -1),
        status=status,
    )


@in_one_thread
@in_standard_modes
def guaranteed_boxes(
    head: LinearHead, features: Float[TensorOrArray, "B d"] | FeatureBatch
) -> GuaranteedBoxes:
    """Return the largest axis-aligned box around each feature, within the domain, of one class.

    All features may move at once, each between its own two limits. The largest box is the one
    whose smallest distance from the feature to a side is as large as possible, then its next
    smallest, and so on: the solution of a sequence of linear programs, computed in closed form. It
    contains the Linf ball of :func:`fsboundary.guaranteed_balls`, and no single side of it can be
    moved outwards, both up to rounding. (The box with the largest sum of sides would be a corner
    of the constraints, where most features cannot move at all.) A side that no class limits ends
    where the domain does.

    A box is returned only if, for every other class, the margin in the worst corner exceeds the
    bound of its rounding.

    Parameters
    ----------
    head : LinearHead
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.

    Returns
    -------
    GuaranteedBoxes

    Raises
    ------
    ArgumentError
        Wrong types or shapes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> boxes = fsb.guaranteed_boxes(head, z)
    >>> boxes.lower.round(decimals=4).tolist(), boxes.upper.round(decimals=4).tolist()
    ([[2.0, -inf, -inf]], [[inf, 2.0, 2.0]])
    """
    check_head(head)
    z = check_features(head.num_features, features)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    lower = torch.full_like(z, torch.nan)
    upper = lower.clone()
    usable = status == Status.CONVERGED
    size = chunk_rows(2 * max(head.num_features, head.num_classes))
    groups = [
        (k, rows)
        for k in source[usable].unique().tolist()
        for rows in (usable & (source == k)).nonzero()[:, 0].split(size)
    ]

    def solve(group: tuple[int, Tensor]) -> None:
        k, rows = group
        lower[rows], upper[rows], status[rows] = _boxes(head, z[rows], k)

    map_in_threads(z.device, solve, groups)
    return GuaranteedBoxes(lower=lower, upper=upper, source=source, status=status)


def _boxes(head: LinearHead, z: Tensor, source: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the limits (B,d), (B,d) and status (B,) of the rows of one class."""
    problems = BoxProblems.of(head, z, source)
    lower, upper, certified = certify_boxes(problems, max_min_extents(problems))
    margin, error = problems.point_margins()
    whole = ((lower == problems.low) & (upper == problems.high)).all(dim=1)
    status = torch.where(whole, int(Status.UNBOUNDED), int(Status.CONVERGED))
    hidden = (margin <= error).any(dim=1)
    reason = torch.where(hidden, int(Status.UNDECIDED), int(Status.INACCURATE))
    return (
        torch.where(certified[:, None], lower, torch.nan),
        torch.where(certified[:, None], upper, torch.nan),
        torch.where(certified, status, reason),
    )
