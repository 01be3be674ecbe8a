"""Radii in pixels from a Lipschitz constant of the body, for which the caller vouches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.status import Status
from fsboundary.geometry.bounds.rounding import below
from fsboundary.pixels.model_calls import features_of
from fsboundary.plugins.grading.bounds import VALUE_ERROR
from fsboundary.plugins.grading.images import pixel_distance
from fsboundary.regions import guaranteed_balls
from fsboundary.space import FeatureSpace

_DIRECTIONS = 4
"""Random images around each one, at which the constant is compared with the change of features."""


def radii_by_lipschitz(
    space: FeatureSpace,
    images: Tensor,
    distance: Tensor,
    features: Tensor,
    constant: float,
    norm: Literal["linf", "l2"],
) -> dict[str, Tensor]:
    """Return radius, limit, steps and status (R,): guaranteed balls divided by `constant`.

    Parameters
    ----------
    space : FeatureSpace
    images : Tensor (R, C, H, W)
    distance : Tensor (R, 1 + P), float64
        Distances from each image of itself and of P images around it.
    features : Tensor (R, 1 + P, d)
        Features of these images.
    constant : float
        Claimed upper bound of the distance of features relative to that of pixels.
    norm : {"linf", "l2"}
        Norm of pixels.

    Raises
    ------
    ArgumentError
        The features of two images are farther apart than the constant allows.
    """
    balls = guaranteed_balls(space.head, features[:, 0])
    radius = below(balls.radius / constant)
    step = torch.where(torch.isfinite(radius), radius, 1.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_DIRECTIONS):
        signs = torch.randn(images.shape, generator=generator).sign().to(images)
        if norm == "l2":
            signs = signs / signs[0].numel() ** 0.5
        other = images + signs * step.to(images)[:, None, None, None]
        change = features_of(space, other, len(other))
        distance = torch.cat([distance, pixel_distance(images, other, norm)[:, None]], dim=1)
        features = torch.cat([features, change.to(features)[:, None]], dim=1)
    _refute(distance, features, constant)
    return {
        "radius": radius,
        "limit": balls.active_class,
        "steps": torch.zeros_like(balls.status),
        "status": torch.where(
            (balls.status == Status.CONVERGED) & (radius <= 0), int(Status.UNDECIDED), balls.status
        ),
    }


def _refute(distance: Tensor, features: Tensor, constant: float) -> None:
    """Raise ArgumentError if features (R,P,d) of images at `distance` (R,P) are too far apart."""
    z = features.to(torch.float64)
    change = torch.linalg.vector_norm(z - z[:, :1], dim=2)
    rounding = VALUE_ERROR * torch.finfo(features.dtype).eps * torch.linalg.vector_norm(z, dim=2)
    excess = change - rounding > constant * distance
    if bool(excess.any()):
        least = float(((change - rounding) / distance)[excess].max())
        raise ArgumentError(
            "lipschitz",
            f"{constant:g}",
            f"at least {least:g}, the ratio of the changes of features and of pixels at an image",
            "pass a constant that is proved for this body, in this norm, or leave it out",
        )
