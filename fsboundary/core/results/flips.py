"""Flip points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipPoints(Result):
    """The closest boundary points of B rows for T targets each, with certificates.

    Of a head that is not linear, ``lower_bound`` is 0, ``gap`` the distance and ``violation`` an
    estimate by linearisation; ``active`` and ``multipliers`` are empty.

    Every number can be re-checked from ``points``, ``active`` and ``multipliers`` (design.md,
    section 1). Entries that are not ``ok`` are NaN, except ``lower_bound``, which always holds.

    Attributes
    ----------
    points : Tensor (B, T, d), float64
        z', on the boundary of source and target; NaN where there is none.
    distance : Tensor (B, T), float64
        ``|z' - z|`` in feature units; +inf where the target is unreachable.
    lower_bound : Tensor (B, T), float64
        No boundary point lies nearer, at any status. Feature units.
    gap : Tensor (B, T), float64
        distance - lower_bound; 0 where both are +inf.
    violation : Tensor (B, T), float64
        Largest distance of z' from the constraints it must meet, raised by the rounding of its own
        evaluation, so rarely exactly 0. Feature units.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    target : Tensor (B, T)
        Class to reach.
    active : Tensor (B, T, S)
        Classes whose constraint carries a multiplier, -1 as padding. The entry equal to the
        target stands for the tie ``(w_i - w_j).z' + b_i - b_j = 0``, any other entry k for the
        slack ``(w_j - w_k).z' + b_j - b_k >= 0``.
    multipliers : Tensor (B, T, S), float64
        Dual multipliers of ``active``: free for the tie, at least 0 for slacks, 0 as padding.
    status : Tensor (B, T)
        :class:`fsboundary.Status` codes.
    steps : Tensor (B, T)
        Newton steps or solver iterations.
    """

    points: Float64[Tensor, "B T d"]
    distance: Float64[Tensor, "B T"]
    lower_bound: Float64[Tensor, "B T"]
    gap: Float64[Tensor, "B T"]
    violation: Float64[Tensor, "B T"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, "B T"]
    active: Int[Tensor, "B T S"]
    multipliers: Float64[Tensor, "B T S"]
    status: Int[Tensor, "B T"]
    steps: Int[Tensor, "B T"]
