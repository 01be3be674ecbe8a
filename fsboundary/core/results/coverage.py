"""Which rows are covered by guaranteed sets of training features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coverage(Result):
    """Rows, such as those of test images, held against guaranteed sets of training features.

    Attributes
    ----------
    hull : Tensor (B,)
        The class whose guaranteed hull holds the row; -1 for none.
    ball : Tensor (B,)
        A row of the bank whose guaranteed ball holds the row; -1 for none.
    predicted : Tensor (B,)
        The head's float64 decision; -1 where the row is not finite.
    labels : Tensor (B,)
        True classes, -1 where none were given.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides whether the hull holds the row; or why the row
        failed, which counts as not covered.
    """

    hull: Int[Tensor, " B"]
    ball: Int[Tensor, " B"]
    predicted: Int[Tensor, " B"]
    labels: Int[Tensor, " B"]
    status: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoverageShares:
    """How much is covered, and how often the prediction is right there and elsewhere.

    Attributes
    ----------
    kinds : tuple of str
        "hull", "ball", "both", "either": what each entry of the tensors counts.
    covered : Tensor (4,)
        Covered rows.
    share : Tensor (4,), float64
        Of all rows.
    accuracy_covered, accuracy_uncovered : Tensor (4,), float64
        Share of predictions that equal the true label, among the covered rows with a label and
        among the others; NaN where there are none.
    """

    kinds: tuple[str, ...]
    covered: Int[Tensor, " kinds"]
    share: Float64[Tensor, " kinds"]
    accuracy_covered: Float64[Tensor, " kinds"]
    accuracy_uncovered: Float64[Tensor, " kinds"]
