"""Guaranteed balls of multi-label heads: sets in which no label can change."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float

from fsboundary.core.checks import (
    check_choice,
    check_features,
    check_multi_label_head,
    rows_and_labels,
)
from fsboundary.core.heads import MultiLabelHead
from fsboundary.core.results import FeatureBatch, LabelBalls
from fsboundary.core.rows import TensorOrArray, scatter_rows
from fsboundary.core.status import Status
from fsboundary.geometry.flips.nearest import linf_radii, nearest_classes
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def label_balls(
    head: MultiLabelHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    norm: Literal["l2", "linf"] = "l2",
) -> LabelBalls:
    """Return the open ball around each feature, within the domain, that keeps its set of labels.

    The radius is a lower bound, not an estimate: the smallest certified lower bound of the
    distances to the boundaries of all labels, lowered by the rounding of its own evaluation.

    Parameters
    ----------
    head : MultiLabelHead
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    norm : "l2" or "linf"

    Returns
    -------
    LabelBalls
        ``predicted`` are the labels that each ball keeps. Radius in feature units; +inf and
        UNBOUNDED where no label can change; NaN with OUTSIDE_DOMAIN or NOT_FINITE if the row has no
        guarantee.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or another norm.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import MultiLabelHead, label_balls
    >>> balls = label_balls(MultiLabelHead(torch.eye(2), None), torch.tensor([[1.0, -3.0]]))
    >>> balls.label.tolist(), [round(r, 9) for r in balls.radius.tolist()]
    ([0], [1.0])
    """
    check_multi_label_head(head, "guaranteed_balls")
    z = check_features(head.num_features, features)
    check_choice("norm", norm, ("l2", "linf"))
    head = head.to(z.device)
    status, predicted = rows_and_labels(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    rows = z[usable]
    radius = torch.full_like(rows[:, 0], torch.inf)
    active = torch.full_like(usable, -1)
    for k in range(head.num_labels):
        two, source = head.label_head(k), predicted[usable, k].long()
        if norm == "l2":
            found = nearest_classes(two, rows, source, allow_ties=True).radius
        else:
            found = linf_radii(two, rows, source).radius
        nearer = found < radius
        radius, active = torch.where(nearer, found, radius), torch.where(nearer, k, active)
    unbounded = torch.isinf(radius)
    status[usable] = torch.where(unbounded, int(Status.UNBOUNDED), int(Status.CONVERGED))
    return LabelBalls(
        centre=torch.where(torch.isfinite(z), z, torch.nan),
        radius=scatter_rows(radius, usable, len(z)),
        norm=norm,
        predicted=predicted,
        label=scatter_rows(active, usable, len(z), -1),
        status=status,
    )
