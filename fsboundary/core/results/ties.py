"""Points where given classes tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiePoints(Result):
    """The closest points where given classes tie and no other is above, with certificates.

    Every number can be re-checked from ``points``, ``anchor``, ``active`` and ``multipliers``
    (design.md, section 1). Rows that are not ``ok`` are NaN, except ``lower_bound``, which always
    holds.

    Attributes
    ----------
    points : Tensor (B, d), float64
        z'; NaN where there is none.
    distance : Tensor (B,), float64
        ``|z' - z|`` in feature units; +inf where the classes cannot tie at the top.
    lower_bound : Tensor (B,), float64
        No such point lies nearer, at any status. Feature units.
    gap : Tensor (B,), float64
        distance - lower_bound; 0 where both are +inf.
    violation : Tensor (B,), float64
        Largest distance of z' from the constraints it must meet, which compare the anchor with
        every other class, raised by the rounding of its own evaluation. Feature units.
    classes : Tensor (B, M)
        The classes that tie, -1 as padding.
    anchor : Tensor (B,)
        The tied class that the others are compared with; -1 where the row failed.
    active : Tensor (B, S)
        Classes k whose constraint ``(w_r - w_k).z' + b_r - b_k``, with r the anchor, carries a
        multiplier, -1 as padding. It is 0 for tied classes, at least 0 for the others.
    multipliers : Tensor (B, S), float64
        Dual multipliers of ``active``: free for tied classes, at least 0 for the others.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    status : Tensor (B,)
        :class:`fsboundary.Status` codes.
    steps : Tensor (B,)
        Newton steps.
    """

    points: Float64[Tensor, "B d"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    violation: Float64[Tensor, " B"]
    classes: Int[Tensor, "B M"]
    anchor: Int[Tensor, " B"]
    active: Int[Tensor, "B S"]
    multipliers: Float64[Tensor, "B S"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargestTies(Result):
    """How many of a row's top classes can tie, and the closest point where they do.

    Attributes
    ----------
    count : Tensor (B,)
        The largest number of top logits that were found to tie; 0 where the row failed.
    points : Tensor (B, d), float64
        The closest point where they tie and no other is above.
    distance, lower_bound, gap, violation : Tensor (B,), float64
        As in :class:`TiePoints`.
    classes : Tensor (B, M)
        Those classes, the largest logit first, -1 as padding.
    source : Tensor (B,)
        Predicted class of the row; -1 where the row is not finite.
    status : Tensor (B,)
        CONVERGED; or why the row failed.
    stopped : Tensor (B,)
        Why one more class was not added: INFEASIBLE (proved: it cannot tie with these),
        CONVERGED (all classes tie), MAX_STEPS or INACCURATE (not decided, so ``count`` may be too
        small), or the status of a failed row.
    """

    count: Int[Tensor, " B"]
    points: Float64[Tensor, "B d"]
    distance: Float64[Tensor, " B"]
    lower_bound: Float64[Tensor, " B"]
    gap: Float64[Tensor, " B"]
    violation: Float64[Tensor, " B"]
    classes: Int[Tensor, "B M"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    stopped: Int[Tensor, " B"]
