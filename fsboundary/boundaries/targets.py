"""Which classes are asked for, and how the answers go back among all rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.plugins.interfaces import unsolved_flips


def check_targets(
    num_classes: int, targets: object, rows: int
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
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        raise ArgumentError(
            "targets",
            f"classes from {int(targets.min())} to {int(targets.max())}",
            f"0 to {num_classes - 1}",
            "count classes from 0",
        )
    return targets.long() if targets.ndim == 2 else targets.long()[:, None]


def all_targets(source: Tensor, num_classes: int) -> Tensor:
    """Return every class but the source, ascending, (B, K-1)."""
    base = torch.arange(num_classes - 1, device=source.device)
    return base + (base >= source[:, None]).long()


def among_all(
    graded: FlipPoints,
    z: Tensor,
    source: Tensor,
    target: Tensor,
    status: Tensor,
    fine: Tensor,
) -> FlipPoints:
    """Put the graded rows `fine` among the rows that were set aside."""
    own = target == source[:, None]
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
