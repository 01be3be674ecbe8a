"""Checks shared by the functions that a user calls with a head and features."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.errors import ArgumentError
from fsboundary.head import LinearHead
from fsboundary.status import Status


def check_head(head: object) -> None:
    """Raise ArgumentError unless `head` is a LinearHead."""
    if not isinstance(head, LinearHead):
        raise ArgumentError(
            "head",
            type(head).__name__,
            "a LinearHead",
            "pass space.head, or LinearHead(weight, bias, domain)",
        )


def check_features(head: LinearHead, features: object) -> Tensor:
    """Return `features` (B,d) detached as float64, or raise ArgumentError."""
    wanted = f"a float tensor (B, {head.num_features})"
    if not isinstance(features, Tensor):
        raise ArgumentError(
            "features", type(features).__name__, wanted, "pass space.extract(images).features"
        )
    if not features.is_floating_point():
        raise ArgumentError("features", f"dtype {features.dtype}", wanted, "call .double()")
    if features.ndim != 2 or features.shape[1] != head.num_features:
        raise ArgumentError(
            "features",
            f"shape {tuple(features.shape)}",
            wanted,
            "pass features of this head's own layer; a single row needs [None]",
        )
    return features.detach().to(torch.float64)


def row_status(head: LinearHead, z: Tensor) -> Tensor:
    """Return CONVERGED for usable rows of `z` (B,d), NOT_FINITE or OUTSIDE_DOMAIN for others."""
    finite = torch.isfinite(z).all(dim=1)
    inside = head.domain.contains(z)
    status = torch.where(inside, int(Status.CONVERGED), int(Status.OUTSIDE_DOMAIN))
    return torch.where(finite, status, int(Status.NOT_FINITE))
