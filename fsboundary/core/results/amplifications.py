"""How far features move for a small move of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Amplification(Result):
    """How far the features of B images move, in feature units, for pixel moves of one length.

    Attributes
    ----------
    worst : Tensor (B,), float64
        The longest move that was found.
    worst_direction : Tensor (B, C, H, W)
        The pixel move that made it, scaled to length 1; NaN where no move moves the features.
    random_mean, random_max : Tensor (B,), float64
        Mean and longest move over random directions.
    towards_flip : Tensor (B,), float64
        The move in the direction of the flip image; NaN where none was given.
    singular_value : Tensor (B,), float64
        Largest singular value of the Jacobian at the image, features a pixel unit: the same for
        moves that are small enough, without bounds. From below.
    boundary_distance : Tensor (B,), float64
        Distance of the image's features from the nearest boundary, feature units.
    vulnerability : Tensor (B,), float64
        ``worst / boundary_distance``: below 1, no pixel move that was found takes the features as
        far as the boundary.
    predicted : Tensor (B,)
        Class of the image; -1 where a row failed.
    status : Tensor (B,)
        CONVERGED, INFEASIBLE where there is no boundary (distance +inf), or why the row failed.
    """

    worst: Float64[Tensor, " B"]
    worst_direction: Float[Tensor, "B C H W"]
    random_mean: Float64[Tensor, " B"]
    random_max: Float64[Tensor, " B"]
    towards_flip: Float64[Tensor, " B"]
    singular_value: Float64[Tensor, " B"]
    boundary_distance: Float64[Tensor, " B"]
    vulnerability: Float64[Tensor, " B"]
    predicted: Int[Tensor, " B"]
    status: Int[Tensor, " B"]

    def ranking(self) -> Tensor:
        """Return the rows from the most to the least vulnerable, (B,); those that failed last."""
        return self.vulnerability.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
