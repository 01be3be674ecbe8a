"""Guaranteed boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuaranteedBoxes(Result):
    """Closed boxes around features, inside the domain, in which the class cannot change.

    Attributes
    ----------
    lower, upper : Tensor (B, d), float64
        Limits of each feature; infinite where neither a class nor the domain sets one, NaN where
        the row failed.
    source : Tensor (B,)
        The class; -1 where the row is not finite.
    status : Tensor (B,)
        CONVERGED; UNBOUNDED where the box is the whole domain; UNDECIDED where rounding hides the
        margin of the row itself; INACCURATE where no proposed box stood the check; or why the row
        failed.
    """

    lower: Float64[Tensor, "B d"]
    upper: Float64[Tensor, "B d"]
    source: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
