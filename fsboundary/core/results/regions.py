"""Guaranteed balls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuaranteedRegion(Result):
    """Open balls, intersected with the domain, in which the class cannot change.

    Attributes
    ----------
    centre : Tensor (B, d), float64
        The rows themselves.
    radius : Tensor (B,), float64
        Feature units; +inf where no other class is reachable, NaN where the row failed.
    norm : str
        "l2" or "linf".
    active_class : Tensor (B,)
        The class whose boundary limits the ball; -1 where none does.
    status : Tensor (B,)
        CONVERGED, UNBOUNDED (no other class reachable), or why the row failed.
    """

    centre: Float64[Tensor, "B d"]
    radius: Float64[Tensor, " B"]
    norm: Literal["l2", "linf"]
    active_class: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
