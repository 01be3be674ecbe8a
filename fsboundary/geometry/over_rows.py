"""One value a row, beside arrays of any rank."""

from __future__ import annotations

from torch import Tensor


def over_rows(values: Tensor, like: Tensor) -> Tensor:
    """Return `values` (B,) shaped to broadcast over the rows of `like` (B,...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
