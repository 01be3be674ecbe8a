"""From tensors to plain Python numbers that strict JSON can hold."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def plain(value: Any) -> Any:
    """Return `value` with tensors as lists and numbers, and NaN and infinity as None.

    Where infinity is an answer (no other class can be reached) the caller says so beside it.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def quantile(values: Tensor, share: float) -> float:
    """Return a quantile of a 1-D tensor by linear interpolation; NaN where it is empty.

    Unlike :func:`torch.quantile` it allows +inf, which sorts last.
    """
    if len(values) == 0:
        return math.nan
    ordered = values.to(torch.float64).sort().values
    place = share * (len(ordered) - 1)
    low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    part = place - math.floor(place)
    return low if part == 0 or low == high else low + part * (high - low)


def median(values: Tensor) -> float:
    """Return the median of a 1-D tensor, which may hold +inf; NaN where it is empty."""
    return quantile(values, 0.5)
