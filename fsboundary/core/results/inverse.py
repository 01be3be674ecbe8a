"""Images that have given features, or nearly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InverseImages(Result):
    """Images whose features come near B given ones, from S starts each.

    Every number is measured on the image returned, so it holds at any status.

    Attributes
    ----------
    images : Tensor (B, S, C, H, W)
        In the dtype of the starts and within the bounds; NaN where a row failed.
    features : Tensor (B, S, d), float64
        What the body gives for the images.
    residual : Tensor (B, S), float64
        Distance of these from the features asked for, feature units.
    relative_residual : Tensor (B, S), float64
        The residual over the norm of the features asked for (over 1 where that is 0).
    predicted : Tensor (B, S)
        Class of the image; -1 where a row failed.
    boundary_distance : Tensor (B, S), float64
        Distance of the image's features from the nearest boundary in feature space. For the
        features of a flip point: how far the image remains from the boundary.
    spread : Tensor (B,), float64
        Mean distance in pixels between the images of different starts: how far the answer is from
        being the only one. NaN with fewer than two images.
    status : Tensor (B, S)
        CONVERGED: relative residual at most 0.01. MAX_STEPS: above, the image is the best one
        found. NaN rows: INACCURATE where no step came nearer than the start, OUTSIDE_DOMAIN where
        no image has such features, NOT_FINITE.
    """

    images: Float[Tensor, "B S C H W"]
    features: Float64[Tensor, "B S d"]
    residual: Float64[Tensor, "B S"]
    relative_residual: Float64[Tensor, "B S"]
    predicted: Int[Tensor, "B S"]
    boundary_distance: Float64[Tensor, "B S"]
    spread: Float64[Tensor, " B"]
    status: Int[Tensor, "B S"]

    def best(self) -> InverseImages:
        """Return the image of smallest residual of each row, S = 1; ``spread`` stays."""
        first = self.residual.nan_to_num(nan=torch.inf).argmin(dim=1)
        rows = torch.arange(len(first), device=first.device)
        picked = {
            name: value if name == "spread" else value[rows, first][:, None]
            for name, value in self.to_dict().items()
        }
        return InverseImages(**picked)
