"""Classes met on segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPath(Result):
    """The classes met on B segments from t = 0 to t = 1, and where each gives way to the next.

    Attributes
    ----------
    classes : Tensor (B, S)
        In the order in which they are met, -1 as padding.
    crossings : Tensor (B, S-1), float64
        t in (0, 1) at which class s gives way to class s + 1, NaN as padding.
    points : Tensor (B, S-1, d), float64
        The points there, on the boundary of the two classes, NaN as padding.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides which class is largest on some stretch;
        INACCURATE where the path missed the rounding of the logits when it was checked; or why the
        row failed.
    """

    classes: Int[Tensor, "B S"]
    crossings: Float64[Tensor, "B S_1"]
    points: Float64[Tensor, "B S_1 d"]
    status: Int[Tensor, " B"]
