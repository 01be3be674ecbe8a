"""Guaranteed balls: how far a feature may move before its class can change."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import GuaranteedRegion
from fsboundary.core.status import Status
from fsboundary.geometry.flips.nearest import linf_radii, nearest_classes


def guaranteed_balls(
    head: LinearHead, features: Float[Tensor, "B d"], norm: Literal["l2", "linf"] = "l2"
) -> GuaranteedRegion:
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
    GuaranteedRegion
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
    return GuaranteedRegion(
        centre=centre, radius=radius, norm=norm, active_class=active, status=status
    )
