"""Angles between the rows of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.geometry.norms import lengths


def pairwise_angles(rows: Tensor) -> Tensor:
    """Return angles (K,K) in radians between `rows` (K,d); NaN where a row is zero.

    By 2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan), which keeps its digits at 0 and π,
    where the arc cosine loses half of them.
    """
    # a length below the smallest normal number would have few digits
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    unit = rows / lengths(rows)[:, None]
    mode = "donot_use_mm_for_euclid_dist"  # the product would lose what atan2 keeps
    apart = torch.cdist(unit, unit, compute_mode=mode)
    together = torch.cdist(unit, -unit, compute_mode=mode)
    return 2 * torch.atan2(apart, together)
