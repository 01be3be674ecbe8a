"""Where a row is headed: its flip point and the unit direction, for methods with a target.

Features with a graph back to the pixels, whatever the mode of the caller.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.attr.distances.envelope import rows_in
from fsboundary.boundaries import flip_points
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.geometry.norms import lengths
from fsboundary.space import FeatureSpace


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aim:
    """The flip points of B rows.

    Attributes
    ----------
    unit : Tensor (B, d), float64
        The direction that makes the target more likely: to the flip point, or straight away from
        the nearest one where the target is the row's own class. 0 at distance 0, NaN where there
        is no certified flip point.
    target : Tensor (B,)
        The class on the other side of that flip point.
    distance : Tensor (B,), float64
        To the flip point, feature units.
    """

    unit: Tensor
    target: Tensor
    distance: Tensor


def aim_from(
    space: FeatureSpace,
    inputs: tuple[Tensor, ...],
    additional: tuple[Any, ...],
    target: Tensor | None,
    *,
    quiet: bool = False,
) -> Aim:
    """Return where each row of `inputs` is headed; see :func:`aim`."""
    with torch.no_grad():
        features = space.features(*inputs, *additional)
    # after the pass, which finds the head
    return aim(space.head, features, target, quiet=quiet)


def aim(head: LinearHead, features: Tensor, target: Tensor | None, *, quiet: bool = False) -> Aim:
    """Return where each row of `features` is headed; `target` is (B,) or None for the nearest.

    Warns of rows at distance 0, whose direction is 0, and of rows without a flip point; if `quiet`
    of rows that are not finite alone.
    """
    z = features.detach().double()
    head = head.to(z.device)
    flips = flip_points(head, z, "nearest" if target is None else target.to(z.device))
    points, distance = flips.points[:, 0].clone(), flips.distance[:, 0].clone()
    across, status = flips.target[:, 0].clone(), flips.status[:, 0].clone()
    own = status == Status.TARGET_IS_SOURCE
    if bool(own.any()):
        nearest = flip_points(head, z[own])
        points[own], distance[own] = nearest.points[:, 0], nearest.distance[:, 0]
        across[own], status[own] = nearest.target[:, 0], nearest.status[:, 0]
    moved = points - z
    unit = moved / torch.where(distance > 0, lengths(moved), 1.0)[:, None]
    unit = torch.where(own[:, None], -unit, unit)
    missing = ~torch.isfinite(distance)
    unit = torch.where(missing[:, None], torch.nan, unit)
    if quiet:
        missing = missing & (status == Status.NOT_FINITE)
    if bool(missing.any()):
        codes = sorted({int(code) for code in status[missing].tolist()})
        advice = "; ".join(f"{Status(c).name}: {Status(c).advice}" for c in codes)
        warn(f"no flip point, so no direction: the attribution is NaN ({advice})", missing)
    if bool((distance == 0).any()) and not quiet:
        warn(
            "on the boundary, distance 0: there is no direction, and 0 stands for it", distance == 0
        )
    return Aim(unit=unit, target=across, distance=distance)


def warn(message: str, rows: Tensor) -> None:
    """Warn of the `rows` (B,) that are true."""
    warnings.warn(f"{message} ({rows_in(rows[:, None])})", stacklevel=3)


def warn_of_zeros(attributions: tuple[Tensor, ...], meant: Tensor, why: str) -> None:
    """Warn of rows that got nothing but zeros although `meant` (B,) says that they should."""
    some = torch.stack([(a.detach() != 0).flatten(1).any(dim=1) for a in attributions]).any(dim=0)
    zero = meant.to(some.device) & ~some
    if bool(zero.any()):
        warn(f"the attribution is zero: {why}", zero)


def watched_features(
    space: FeatureSpace, inputs: tuple[Tensor, ...], additional: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return copies of `inputs` that take gradients, and their features (B,d)."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():  # NoiseTunnel and robust metrics call without
        return leaves, space.features(*leaves, *additional)


def pulled_back(features: Tensor, leaves: tuple[Tensor, ...], unit: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of ``unit . features`` with respect to each of `leaves`.

    Raises
    ------
    ArgumentError
        The features have no gradient.
    """
    if not features.requires_grad:
        raise ArgumentError(
            "model",
            "features without a gradient",
            "a body that autograd follows back to the images",
            "take detach(), no_grad() and roundings out of its forward, or use a method that "
            "needs no gradient",
        )
    grads: tuple[Tensor, ...] = torch.autograd.grad(features, leaves, unit.to(features))
    return grads
