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
        clean = search.clean[rows]
        walk = stride * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        turned = x - clean - walk * search.steepest(gradient)
        if step:
            smaller = torch.minimum(length[rows] * (1 - rate), search.distance[rows])
            length[rows] = torch.where(across, smaller, length[rows] * (1 + rate))
        size = search.length(turned).clamp_min(torch.finfo(x.dtype).tiny)
        turned = turned * (length[rows] / size)[:, None]
        change[rows] = (clean + turned).clamp(*search.box) - clean
