"""Flip points: the closest boundary points of a batch of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.boundaries.nonlinear import find_on_nonlinear
from fsboundary.boundaries.targets import all_targets, among_all, check_targets
from fsboundary.core.checks import check_features, check_limits, rows_and_sources
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.flips.nearest import nearest_classes
from fsboundary.plugins import create
from fsboundary.plugins.grading.flips import find_and_grade
from fsboundary.plugins.interfaces import BoundaryFinder

MAX_STEPS = 200
"""Default limit of steps a problem; real heads need fewer than twenty."""


def find_flip_points(
    head: LinearHead | Callable[[Tensor], Tensor],
    features: Float[Tensor, "B d"],
    targets: Literal["nearest", "all"] | Int[Tensor, "B ..."] = "nearest",
    *,
    finder: str | BoundaryFinder = "dual_newton",
    tolerance: float | None = None,
    max_steps: int | None = None,
    domain: Domain | None = None,
) -> FlipPoints:
    """Return the closest boundary points of features, with float64 certificates.

    The source of a row is its predicted class, also for misclassified rows. A flip point of
    source i and target j is the closest point of the domain where logits i and j tie and no
    other logit is above (design.md, section 1).

    A `head` that is not linear, such as the layers after an earlier one, needs a finder with the
    capability "nonlinear_head", such as "linearised". Its points are certified to lie on the
    boundary, and not to be the closest: the status is ON_BOUNDARY, the lower bound 0.

    Parameters
    ----------
    head : LinearHead or callable
        For example ``space.head``. A callable takes features (B,d) to logits (B,K),
        differentiably and each row by itself; it is asked in the dtype of its weights, or of
        `features` where it is no module.
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
        allowed. Of a callable: by which share of the range of the logits source and target may
        be below the largest, default 1e-8, and 1.2e-5 where it computes in float32.
    max_steps : int, optional
        Default 200.
    domain : Domain, optional
        Of the features of a callable, default unbounded. A LinearHead carries its own.

    Returns
    -------
    FlipPoints
        Distances in feature units. Per entry: INFEASIBLE with distance +inf where no such point
        exists; NaN with OUTSIDE_DOMAIN, NOT_FINITE, TARGET_IS_SOURCE, MAX_STEPS or INACCURATE
        where there is no certified answer. Of a callable: ON_BOUNDARY where a point was found;
        ``gap`` is the distance, ``violation`` the distance to the tie by linearisation.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, before any work.
    PluginError
        The finder raised or answered in the wrong shape.
    """
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    if not isinstance(head, LinearHead):
        return find_on_nonlinear(
            head,
            features,
            targets,
            domain=Domain.unbounded() if domain is None else domain,
            finder=finder,
            tolerance=None if tolerance is None else rtol,
            max_steps=limit,
        )
    if domain is not None:
        fix = "leave it out, or pass LinearHead(weight, bias, domain)"
        raise ArgumentError("domain", repr(domain), "None with a LinearHead", fix)
    z = check_features(head.num_features, features)
    chosen = check_targets(head.num_classes, targets, len(z))
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
        target = all_targets(source, head.num_classes)
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
    return among_all(graded, z, source, target, status, fine)
