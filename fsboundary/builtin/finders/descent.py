"""Across the boundary and back: a descent that keeps direction and length of the change apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fsboundary.builtin.finders.image_search import ImageSearch


def descend(
    search: ImageSearch,
    steps: int,
    change: Tensor,
    *,
    radius: float,
    stride: float,
    rate: float,
) -> None:
    """Walk for `steps` gradients an image; the search keeps the nearest images across.

    After J. Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses", CVPR 2019: each change is turned by a gradient step and set
    to a length of its own, which shrinks where the image is across and grows where it is not.

    Parameters
    ----------
    change : Tensor (B, n)
        What to add to the clean images first.
    radius : float
        First length of the change, pixel units.
    stride : float
        First length of a gradient step, pixel units; falls to a hundredth by a cosine.
    rate : float
        Share by which the length changes in a step.
    """
    change, rows = change.clone(), search.all_rows
    length = torch.full_like(search.distance, radius)
    for step in range(steps):
        if len(rows) == 0:
            return
        x = search.clean[rows] + change[rows]
        slope = search.slope(rows, x, smooth=True)
        search.keep(rows, x, slope.gap, slope.slack)
        size = torch.linalg.vecdot(slope.gradient, search.steepest(slope.gradient))
        # a flat or broken model gives no direction
        alive = (size > 0) & torch.isfinite(size)
        rows, x, gradient = rows[alive], x[alive], slope.gradient[alive]
        across = ((slope.gap <= 0) & (slope.slack >= 0))[alive]
        if step:
            smaller = torch.minimum(length[rows] * (1 - rate), search.distance[rows])
            length[rows] = torch.where(across, smaller, length[rows] * (1 + rate))
        walk = stride * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        change[rows] = turned(search, rows, x, gradient, walk, length[rows])


def turned(
    search: ImageSearch,
    rows: Tensor,
    x: Tensor,
    gradient: Tensor,
    walk: Tensor | float,
    length: Tensor,
) -> Tensor:
    """Return the changes (R,n) of images `x` (R,n), turned by a step and set to `length` (R,).

    The step goes `walk` pixel units, one number or one a row, in the steepest direction.
    """
    clean = search.clean[rows]
    size = torch.as_tensor(walk, dtype=x.dtype, device=x.device).reshape(-1, 1)
    moved = x - clean - size * search.steepest(gradient)
    size = search.length(moved).clamp_min(torch.finfo(x.dtype).tiny)
    return (clean + moved * (length / size)[:, None]).clamp(*search.box) - clean
