"""The last digits of an inversion: Gauss-Newton steps in a box.

Exact in a step or two where the body is linear near the image, and a few wasted passes where it is
not: there a row leaves as soon as a step gains little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.protocols import ModelView
from fsboundary.pixels.jacobian import Linearised, features_of, norms, per_image

_STEPS = 30
_PRODUCTS = 20
"""Conjugate gradient steps for one linear system."""
_LINEAR = 1e-3
"""The body counts as linear where a whole step's outcome is foreseen to this share of the
distance."""
_FAST = 0.5
"""Elsewhere a row goes on only if a step leaves no more than this share of its distance."""


def polish(view: ModelView, wanted: Tensor, start: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return images whose features are at least as near `wanted` as those of `start` are.

    Pixels at a bound that would leave the box stay; the others move as the least squares problem
    of the linearised body says, and are clipped (Bertsekas, SIAM J. Control Optim. 20, 1982).

    Parameters
    ----------
    view : ModelView
    wanted : Tensor (B, d)
    start : Tensor (B, C, H, W)
        Within `bounds`.
    bounds : (float, float)
    """
    images = start.clone()
    rows = torch.arange(len(images), device=images.device)
    for _ in range(_STEPS):
        if len(rows) == 0:
            break
        x, goal = images[rows], wanted[rows]
        near = Linearised(view, x)
        missing = goal.to(near.features) - near.features
        move, steep = _least_squares(near, missing, x, bounds)
        before = norms(missing)
        found, after = x, before
        whole, linear = torch.ones_like(before), torch.zeros_like(before, dtype=torch.bool)
        tries = [(move, whole), (move, whole / 2), (move, _first_bound(x, move, bounds))]
        # a free pixel at its bound may be moved outward by the whole, never by the gradient
        for way, share in [*tries, (steep, whole), (steep, whole / 4)]:
            tried = (x + per_image(share, x) * way).clamp(*bounds)
            left = norms(goal.to(near.features) - features_of(view, tried, len(tried)).to(missing))
            if way is move and share is whole:
                foreseen = norms(missing - near.along(tried - x))
                linear = (left - foreseen).abs() <= _LINEAR * before
            better = left < after
            found = torch.where(per_image(better, x) > 0, tried, found)
            after = torch.where(better, left, after)
        images[rows] = found
        share = torch.where(linear, 1 - torch.finfo(x.dtype).eps, _FAST)
        rows = rows[after < share * before]
    return images


def _first_bound(x: Tensor, move: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the share (B,) of `move` at which the first pixel that is not held meets a bound."""
    room = torch.where(move > 0, bounds[1] - x, x - bounds[0])
    share = torch.where(room > 0, room / move.abs(), torch.inf)
    return share.flatten(1).amin(dim=1).clamp_max(1)


def _least_squares(
    near: Linearised, missing: Tensor, x: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the shortest move of the free pixels after which the linear body misses least.

    And the move along the gradient alone that does best. Conjugate gradients on the normal
    equations (Hestenes and Stiefel 1952), which need no body of full rank.
    """
    downhill = near.back(missing)
    held = ((x <= bounds[0]) & (downhill < 0)) | ((x >= bounds[1]) & (downhill > 0))
    free = (~held).to(x)
    slope = free * downhill
    move, ahead, rest = torch.zeros_like(x), slope, missing
    size = slope.flatten(1).square().sum(dim=1)
    enough = torch.finfo(x.dtype).eps ** 2 * size
    steep = move
    for step in range(_PRODUCTS):
        image = near.along(ahead)
        curve = image.square().sum(dim=1).to(size)
        go = (curve > 0) & (size > enough)
        if not bool(go.any()):
            break
        pace = torch.where(go, size / torch.where(go, curve, 1), 0)
        move = move + per_image(pace, x) * ahead
        if step == 0:
            steep = move
        rest = rest - pace[:, None].to(rest) * image
        slope = free * near.back(rest)
        new = slope.flatten(1).square().sum(dim=1)
        ratio = torch.where(go, new / torch.where(go, size, 1), 0)
        ahead = slope + per_image(ratio, x) * ahead
        size = new
    return move, steep
