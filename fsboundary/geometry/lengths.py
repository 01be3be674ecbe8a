"""Euclidean lengths over the whole range of float64.

The sum of squares underflows to 0 for entries below 1e-162 and overflows above 1e154. A length of
0 of a row that is not zero would make two classes "equal" and their boundary "unreachable", so
every length behind a certificate comes from here.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny
"""The smallest normal number. ``dot_error(n) * TINY`` bounds what n products lose by underflow,
half of the smallest subnormal number each."""

_SMALL, _LARGE = 1e-140, 1e150
"""Between these, no square of an entry that matters has underflowed and no sum overflowed."""


def lengths(x: Tensor) -> Tensor:
    """Return the Euclidean length (...) of each row of `x` (..., d), float64.

    Exact up to rounding for any finite entries; +inf where the length itself is above the largest
    number or an entry is infinite.
    """
    plain: Tensor = torch.linalg.vector_norm(x, dim=-1)
    strange = ~((plain > _SMALL) & (plain < _LARGE))
    if bool(strange.any()):
        part = x[strange]
        largest = part.abs().amax(dim=-1)
        scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
        plain[strange] = scale * torch.linalg.vector_norm(part / scale[..., None], dim=-1)
    return plain
