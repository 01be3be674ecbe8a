"""Argument checks shared by the functions that take a head and features."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.rows import scatter_rows
from fsboundary.core.status import Status


def check_head(head: object) -> None:
    """Raise ArgumentError unless `head` is a LinearHead."""
    if not isinstance(head, LinearHead):
        raise ArgumentError(
            "head",
            type(head).__name__,
            "a LinearHead",
            "pass space.head, or LinearHead(weight, bias, domain)",
        )


def check_class(head: LinearHead, i: object) -> int:
    """Return `i`, or raise ArgumentError unless it is the index of a class of `head`."""
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < head.num_classes:
        raise ArgumentError(
            "i", repr(i), f"a class, 0 to {head.num_classes - 1}", "count classes from 0"
        )
    return i


def check_features(width: int, features: object, name: str = "features") -> Tensor:
    """Return `features` (B, width) detached, as float64, or raise ArgumentError about `name`."""
    wanted = f"a float tensor (B, {width})"
    if not isinstance(features, Tensor):
        raise ArgumentError(
            name, type(features).__name__, wanted, "pass space.extract(images).features"
        )
    if not features.is_floating_point():
        raise ArgumentError(name, f"dtype {features.dtype}", wanted, "call .double()")
    if features.ndim != 2 or features.shape[1] != width:
        raise ArgumentError(
            name,
            f"shape {tuple(features.shape)}",
            wanted,
            "pass features of the same layer as the head or bank; a single row needs [None]",
        )
    return features.detach().to(torch.float64)


def check_limits(
    tolerance: float | None, max_steps: int | None, default: tuple[float, int]
) -> tuple[float, int]:
    """Return the tolerance and the step limit, defaults filled in, or raise ArgumentError."""
    rtol = default[0] if tolerance is None else float(tolerance)
    limit = default[1] if max_steps is None else int(max_steps)
    if not 0 < rtol < 1:
        fix = f"pass {default[0]:g}, for example"
        raise ArgumentError("tolerance", str(tolerance), "a number in (0, 1)", fix)
    if limit < 1:
        raise ArgumentError("max_steps", str(max_steps), "at least 1", "leave it out")
    return rtol, limit


def row_status(head: LinearHead | NonlinearHead, z: Tensor) -> Tensor:
    """Return CONVERGED for usable rows of `z` (B,d), else NOT_FINITE or OUTSIDE_DOMAIN."""
    finite = torch.isfinite(z).all(dim=1)
    inside = head.domain.contains(z)
    status = torch.where(inside, int(Status.CONVERGED), int(Status.OUTSIDE_DOMAIN))
    return torch.where(finite, status, int(Status.NOT_FINITE))


def rows_and_sources(head: LinearHead | NonlinearHead, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the :func:`row_status` (B,) of the rows of `z` and their predicted classes (B,)."""
    status = row_status(head, z)
    finite = status != Status.NOT_FINITE
    return status, scatter_rows(head.predict(z[finite]), finite, len(z), -1)
