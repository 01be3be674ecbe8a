"""Projections onto hyperplanes within a box, one problem per row."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

_HALVINGS = 40
"""Enough to determine a float32 multiplier to its last bits."""

_SWEEPS = 10
"""Sweeps over the multipliers; callers begin with those of the previous step."""


def project_onto_plane(
    z: Tensor,
    normal: Tensor,
    offset: Tensor,
    box: tuple[float, float],
    norm: Literal["l2", "linf"] = "l2",
) -> tuple[Tensor, Tensor]:
    """Return the point (B,d) of the box nearest to `z` with ``normal.x <= offset``, and its step.

    Moving along the normal (its signs, for Linf) and clipping to the box lowers ``normal.x``
    steadily, so bisection on the step finds the exact point. If the box has no such point, the
    result is the one with the smallest ``normal.x``. The step (B,) is the multiplier.

    Parameters
    ----------
    z : Tensor (B, d)
        Points, possibly outside the box; the result is then that of the clipped path.
    normal : Tensor (B, d)
    offset : Tensor (B,)
    """
    direction = normal.sign() if norm == "linf" else normal

    def at(step: Tensor) -> Tensor:
        return (z - step[:, None] * direction).clamp(*box)

    def above(step: Tensor) -> Tensor:
        beyond: Tensor = torch.linalg.vecdot(normal, at(step)) > offset
        return beyond

    # the largest step that still moves a coordinate: beyond it all are at their bounds
    room = torch.where(direction > 0, z - box[0], z - box[1]) / direction
    high = torch.where(direction == 0, 0.0, room).amax(dim=1).clamp_min(0.0)
    # without the box; exact where no coordinate is clipped
    rate = torch.linalg.vecdot(normal, direction).clamp_min(torch.finfo(z.dtype).tiny)
    free = (torch.linalg.vecdot(normal, z) - offset).clamp_min(0.0) / rate
    low = torch.zeros_like(high)
    high = torch.where(above(free), high, torch.minimum(free, high))
    low = torch.where(above(free), torch.minimum(free, high), low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = above(middle)
        low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
    return at(high), high


def project_onto_planes(
    z: Tensor,
    normals: Tensor,
    offsets: Tensor,
    box: tuple[float, float],
    norm: Literal["l2", "linf"] = "l2",
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a point of the box near `z` (B,d) on the first plane and not above the others.

    Ascent on one multiplier at a time, by whole sweeps. For L2 this tends to the nearest such
    point; for Linf it gives one that need not be the nearest.

    Parameters
    ----------
    z : Tensor (B, d)
    normals : Tensor (B, M, d)
        Normals of the planes; zero rows impose nothing.
    offsets : Tensor (B, M)
        Offsets: ``normal.x`` equals the first and is at most each other one.
    start : Tensor (B, M), optional
        Initial multipliers, those of a similar problem.

    Returns
    -------
    (Tensor (B, d), Tensor (B, M))
        The points and the multipliers.
    """
    directions = normals.sign() if norm == "linf" else normals
    steps = torch.zeros_like(offsets) if start is None else start.clone()
    point = z
    for _ in range(_SWEEPS):
        for m in range(normals.shape[1]):
            steps[:, m] = 0
            moved = z - torch.einsum("bm,bmd->bd", steps, directions)
            point, steps[:, m] = project_onto_plane(moved, normals[:, m], offsets[:, m], box, norm)
            if m == 0:
                # from below the plane up to it; of the two steps one is 0
                _, up = project_onto_plane(moved, -normals[:, 0], -offsets[:, 0], box, norm)
                steps[:, 0] -= up
    return point, steps
