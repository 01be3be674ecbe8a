"""Which generators of a hull are its vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullVertices(Result):
    """Which of n generators are extreme, judged by their distance to the hull of all others.

    Rows that hold the same point share one answer.

    Attributes
    ----------
    extreme : Tensor (n,)
        1 a vertex: ``lower_bound`` is above the absolute tolerance, 1e-9 of the RMS norm of the
        points about their mean. -1 not a vertex: within that tolerance of the hull of all other
        points. 0 undecided.
    distance, lower_bound : Tensor (n,), float64
        Upper and lower bound of the distance to the hull of all other points, as near to each
        other as deciding took, not nearer; +inf where there is no other. Feature units.
    copy_of : Tensor (n,)
        The lowest row that holds the same point; the row itself where it is the first.
    status, steps : Tensor (n,)
        CONVERGED where decided; passes of the solver, 0 where one direction sufficed.
    """

    extreme: Int[Tensor, " n"]
    distance: Float64[Tensor, " n"]
    lower_bound: Float64[Tensor, " n"]
    copy_of: Int[Tensor, " n"]
    status: Int[Tensor, " n"]
    steps: Int[Tensor, " n"]

    @property
    def indices(self) -> Tensor:
        """Rows of this result that hold a vertex, ascending, every copy included."""
        return (self.extreme == 1).nonzero()[:, 0]

    @property
    def count(self) -> int:
        """Number of vertices found; copies of a point count once."""
        return len(self.copy_of[self.extreme == 1].unique())
