"""Flip points: the closest boundary points of a batch of features."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.arguments import check_features, check_head, check_limits, rows_and_sources
from fsboundary.errors import ArgumentError
from fsboundary.geometry.nearest import nearest_classes
from fsboundary.head import LinearHead
from fsboundary.interfaces import BoundaryFinder, unsolved_flips
from fsboundary.registry import create
from fsboundary.registry.grading import find_and_grade
from fsboundary.results import FlipPoints
from fsboundary.status import Status
from fsboundary.tolerance import FLIP_RTOL

MAX_STEPS = 200
"""Default limit of steps a problem; real heads need fewer than twenty."""


def find_flip_points(
    head: LinearHead,
    features: Float[Tensor, "B d"],
    targets: Literal["nearest", "all"] | Int[Tensor, "B ..."] = "nearest",
    *,
    finder: str | BoundaryFinder = "dual_newton",
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> FlipPoints:
    """Return the closest boundary points of features, with float64 certificates.

    The source of a row is its predicted class, also for misclassified rows. A flip point of
    source i and target j is the closest point of the domain where logits i and j tie and no
    other logit is above (design.md, section 1).

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor (B, d)
        Any float dtype; computed in float64.
    targets : "nearest", "all" or integer Tensor (B,) or (B, T)
        "nearest": T = 1, the class whose boundary is nearest in the domain; the certificate
        then also covers the choice of the class. "all": T = K - 1, ascending, without the
        source. A tensor (B,) gives T = 1.
    finder : str or BoundaryFinder
        Name of a plugin ("dual_newton", "closed_form", "cvxpy", ...) or an instance.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Default 200.

    Returns
    -------
    FlipPoints
        Distances in feature units. Per entry: INFEASIBLE with distance +inf where no such point
        exists; NaN with OUTSIDE_DOMAIN, NOT_FINITE, TARGET_IS_SOURCE, MAX_STEPS or INACCURATE
        where there is no certified answer.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, before any work.
    PluginError
        The finder raised or answered in the wrong shape.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    chosen = _check_targets(head, targets, len(z))
    plugin = create("boundary_finder", finder)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
    rows = z[fine]
    # last, for a finder sees these rows alone and a logit's last bit may depend on the batch
    source[fine] = head.predict(rows)
    ceiling = None
    if isinstance(chosen, Tensor):
        target = chosen.to(z.device)
    elif chosen == "all":
        target = _all_targets(source, head.num_classes)
    else:
        nearest = nearest_classes(head, rows, source[fine], keeps=False)
        target = torch.full((len(z), 1), -1, dtype=torch.int64, device=z.device)
        target[fine, 0] = nearest.target
        ceiling = nearest.radius[:, None]
    own = target == source[:, None]
    asked = target[fine]
    # an entry that asks for its own class is solved for another one and blanked afterwards
    asked = torch.where(own[fine], (asked + 1) % head.num_classes, asked)
    graded = find_and_grade(
        plugin,
        head,
        rows,
        source[fine],
        asked,
        tolerance=rtol,
        max_steps=limit,
        ceiling=ceiling,
    )
    return _spread(graded, z, source, target, status, fine, own)


def _check_targets(
    head: LinearHead, targets: object, rows: int
) -> Literal["nearest", "all"] | Tensor:
    """Return "nearest", "all" or the targets as (B,T)."""
    if isinstance(targets, str) and targets == "nearest":
        return "nearest"
    if isinstance(targets, str) and targets == "all":
        return "all"
    if not isinstance(targets, Tensor):
        raise ArgumentError(
            "targets",
            repr(targets),
            '"nearest", "all" or an integer tensor (B,) or (B, T)',
            "pass torch.full((B,), k) for one class",
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ArgumentError("targets", f"dtype {targets.dtype}", "integers", "call .long()")
    if targets.ndim not in (1, 2) or targets.shape[0] != rows:
        raise ArgumentError(
            "targets",
            f"shape {tuple(targets.shape)}",
            f"({rows},) or ({rows}, T)",
            "pass one target, or one row of targets, for each row of features",
        )
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < head.num_classes:
        raise ArgumentError(
            "targets",
            f"classes from {int(targets.min())} to {int(targets.max())}",
            f"0 to {head.num_classes - 1}",
            "count classes from 0",
        )
    return targets.long() if targets.ndim == 2 else targets.long()[:, None]


def _all_targets(source: Tensor, num_classes: int) -> Tensor:
    """Return every class but the source, ascending, (B, K-1)."""
    base = torch.arange(num_classes - 1, device=source.device)
    return base + (base >= source[:, None]).long()


def _spread(
    graded: FlipPoints,
    z: Tensor,
    source: Tensor,
    target: Tensor,
    status: Tensor,
    fine: Tensor,
    own: Tensor,
) -> FlipPoints:
    """Put the graded rows among the rows that were set aside."""
    fields = unsolved_flips(z, source, target)
    slots = graded.active.shape[2]
    fields["active"] = fields["active"].repeat(1, 1, slots)
    fields["multipliers"] = fields["multipliers"].repeat(1, 1, slots)
    for name in fields:
        if name not in ("source", "target"):
            fields[name][fine] = getattr(graded, name)
    codes = status[:, None].expand_as(target)
    fields["status"] = torch.where(codes == Status.CONVERGED, fields["status"], codes)
    blank = own & (codes == Status.CONVERGED)
    fields["status"][blank] = int(Status.TARGET_IS_SOURCE)
    for name in ("points", "distance", "gap", "violation"):
        fields[name][blank] = torch.nan
    fields["lower_bound"][blank] = 0.0
    fields["active"][blank] = -1
    fields["multipliers"][blank] = 0.0
    return FlipPoints(**fields)
