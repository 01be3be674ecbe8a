"""Unit directions to flip points, and features with a graph back to the pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.attr.distances.distance_function import describe_rows
from fsboundary.attr.methods.arguments import target_rows
from fsboundary.boundaries import flip_points
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.geometry.norms import lengths
from fsboundary.modes import caller_level
from fsboundary.space import FeatureSpace


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipDirection:
    """Directions to the flip points of B rows.

    Attributes
    ----------
    unit : Tensor (B, d), float64
        Unit direction towards the target: to the flip point, or straight away from the nearest one
        if the target is the row's own class. 0 at distance 0, NaN where there is no certified
        flip point.
    target : Tensor (B,)
        Class on the other side of that flip point.
    distance : Tensor (B,), float64
        Distance to the flip point, feature units.
    """

    unit: Tensor
    target: Tensor
    distance: Tensor


def flip_direction(
    space: FeatureSpace,
    inputs: tuple[Tensor, ...],
    additional: tuple[Any, ...],
    target: Tensor | None,
    *,
    quiet: bool = False,
) -> FlipDirection:
    """Return the flip direction of each row of `inputs`; see :func:`feature_flip_direction`."""
    with torch.no_grad():
        features = space.features(*inputs, *additional)
    # the head is known only after a forward pass
    return feature_flip_direction(space.head, features, target, quiet=quiet)


def feature_flip_direction(
    head: LinearHead, features: Tensor, target: Tensor | None, *, quiet: bool = False
) -> FlipDirection:
    """Return the direction from each row of `features` to its flip point.

    `target` is (B,), or None for the nearest class. Warns of rows at distance 0, whose direction
    is 0, and of rows without a flip point; if `quiet`, only of rows that are not finite.
    """
    z = features.detach().double()
    head = head.to(z.device)
    target = target_rows(target, len(z), z.device, head.num_classes)
    flips = flip_points(head, z, "nearest" if target is None else target)
    points, distance = flips.points[:, 0].clone(), flips.distance[:, 0].clone()
    across, status = flips.target[:, 0].clone(), flips.status[:, 0].clone()
    away = status == Status.TARGET_IS_SOURCE
    if bool(away.any()):
        nearest = flip_points(head, z[away])
        points[away], distance[away] = nearest.points[:, 0], nearest.distance[:, 0]
        across[away], status[away] = nearest.target[:, 0], nearest.status[:, 0]
    step = points - z
    unit = step / torch.where(distance > 0, lengths(step), 1.0)[:, None]
    unit = torch.where(away[:, None], -unit, unit)
    missing = ~torch.isfinite(distance)
    unit = torch.where(missing[:, None], torch.nan, unit)
    if quiet:
        missing = missing & (status == Status.NOT_FINITE)
    if bool(missing.any()):
        codes = sorted({int(code) for code in status[missing].tolist()})
        advice = "; ".join(f"{Status(c).name}: {Status(c).advice}" for c in codes)
        warn(f"no flip point, so no direction: the attribution is NaN ({advice})", missing)
    if bool((distance == 0).any()) and not quiet:
        warn("on the boundary, distance 0: no direction exists, and 0 is used", distance == 0)
    return FlipDirection(unit=unit, target=across, distance=distance)


def warn(message: str, rows: Tensor) -> None:
    """Warn of the `rows` (B,) that are true."""
    warnings.warn(f"{message} ({describe_rows(rows[:, None])})", stacklevel=caller_level())


def warn_zero_attributions(attributions: tuple[Tensor, ...], expected: Tensor, why: str) -> None:
    """Warn of rows whose attributions are all zero although `expected` (B,) is true."""
    nonzero = [(a.detach() != 0).flatten(1).any(dim=1) for a in attributions]
    any_nonzero = torch.stack(nonzero).any(dim=0)
    zero = expected.to(any_nonzero.device) & ~any_nonzero
    if bool(zero.any()):
        warn(f"the attribution is zero: {why}", zero)


def differentiable_features(
    space: FeatureSpace, inputs: tuple[Tensor, ...], additional: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return copies of `inputs` that require gradients, and their features (B,d)."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():  # NoiseTunnel and the metrics of captum.robust disable gradients
        return leaves, space.features(*leaves, *additional)


def feature_vjp(features: Tensor, leaves: tuple[Tensor, ...], unit: Tensor) -> tuple[Tensor, ...]:
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
            "a body that autograd can differentiate back to the images",
            "remove detach(), no_grad() and rounding from its forward, or use a method that "
            "needs no gradient",
        )
    grads: tuple[Tensor, ...] = torch.autograd.grad(features, leaves, unit.to(features))
    return grads
