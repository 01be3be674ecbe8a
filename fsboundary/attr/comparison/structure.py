"""Structural similarity of two attributions (Wang et al. 2004, "Image quality assessment")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

WINDOW = 7
"""Side of the square, uniform window; smaller images take the largest odd side that fits."""

_RANGE = 2.0  # of values from -1 to 1
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # the paper's K1 and K2


def to_unit_range(a: Tensor) -> Tensor:
    """Return each image of `a` (B,C,H,W) divided by the size of its largest entry."""
    return a / a.abs().amax(dim=(1, 2, 3), keepdim=True)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM (B,) of images (B,C,H,W) with values from -1 to 1.

    The mean runs over all windows that lie inside the image, and over the channels. Variances
    are those of the window itself (divided by the number of its pixels).
    """
    side = min(WINDOW, a.shape[2], a.shape[3])
    side -= 1 - side % 2

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, side, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    # what rounding leaves of a variance may be below 0
    var_a = (mean(a * a) - mean_a**2).clamp_min(0.0)
    var_b = (mean(b * b) - mean_b**2).clamp_min(0.0)
    covariance = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    shape = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return torch.mean(light * shape, dim=(1, 2, 3))
