"""Absolute and relative tolerances, and float64 rounding constants."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
"""Distance from 1.0 to the next float64, 2.2e-16."""

ATOL_FRACTION = 1e-9
"""Absolute tolerance as a fraction of the problem's scale (design.md, "Gap, everywhere")."""

FLIP_RTOL = 1e-8
"""Default relative tolerance of flip points."""

TOO_FAR = 1e6
"""Multiple of the scale; a boundary proved to be farther away counts as unreachable."""


def absolute(scale: Tensor) -> Tensor:
    """Return the absolute tolerance ``max(1e-9 * scale, smallest normal float64)``.

    Parameters
    ----------
    scale : Tensor, any shape, float64
        Scale in feature units: |z| + |z'| for flip points, RMS norm about the mean for hulls.
    """
    smallest = torch.finfo(torch.float64).tiny
    return (ATOL_FRACTION * scale).clamp_min(smallest)


def dot_error(terms: int) -> float:
    """Return a relative rounding bound of a float64 sum of `terms` products.

    ``|fl(x.y) - x.y| <= dot_error(n) * sum |x_i y_i|`` for any order of summation, with or
    without fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
    ed., section 3.1: gamma_n = n u / (1 - n u), u = eps / 2).
    """
    roundoffs = terms * EPS / 2
    return roundoffs / (1 - roundoffs)
