"""Moves of an image of a given length within the bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.pixels.jacobian import norms, per_image

_HALVINGS = 60
"""Halvings of the logarithm of a bracket: its ends then agree to rounding."""


def farthest_along(
    x: Tensor, direction: Tensor, radius: float, bounds: tuple[float, float]
) -> Tensor:
    """Return the move of length `radius` that goes farthest along `direction` within `bounds`.

    That is ``clip(x + s direction) - x`` for some s > 0 (the first-order condition of a linear
    programme over a ball and a box). It is shorter where the box ends before, and 0 where the
    direction is 0.

    Parameters
    ----------
    x, direction : Tensor (B, C, H, W)
    radius : float
        Pixel units, L2.
    bounds : (float, float)
    """
    size = direction.flatten(1).abs().amax(dim=1)
    unit = direction / per_image(torch.where(size > 0, size, 1), x)

    def move(s: Tensor) -> Tensor:
        return (x + per_image(s, x) * unit).clamp(*bounds) - x

    low = torch.full_like(size, radius / x[0].numel() ** 0.5 if len(x) else 1.0)
    # a pixel that moves at 2^-40 of the fastest one's pace has then crossed the whole box
    high = torch.full_like(size, 2.0**40 * max(radius, bounds[1] - bounds[0]))
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        long = norms(move(middle)) > radius
        low, high = torch.where(long, low, middle), torch.where(long, middle, high)
    return move(low)
