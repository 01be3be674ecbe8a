"""Flip images, and images across the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipImages(Result):
    """Images on a decision boundary, one a row.

    Attributes
    ----------
    images : Tensor (B, C, H, W)
        Images on the boundary, in the dtype of the input; NaN where none was found.
    distance : Tensor (B,), float64
        Distance of the returned image from the row, pixel units.
    residual : Tensor (B,), float64
        Top minus second logit over largest minus smallest, of the returned image; of two classes
        over their difference at the row itself.
    source, target, status : Tensor (B,)
        Classes and :class:`fsboundary.Status` codes.
    evaluations, forwards : Tensor (B,)
        Gradients and other forward passes spent.
    """

    images: Float[Tensor, "B C H W"]
    distance: Float64[Tensor, " B"]
    residual: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    evaluations: Int[Tensor, " B"]
    forwards: Int[Tensor, " B"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossedImages(Result):
    """Images of the target's class just beyond flip images, of 256 levels, one a row.

    Attributes
    ----------
    images : Tensor (B, C, H, W)
        In the dtype of the flip images; NaN where none was found.
    distance : Tensor (B,), float64
        L2 distance of the returned image from the flip image, pixel units.
    margin : Tensor (B,), float64
        Lead of the target over every other class, of the returned image, logit units.
    source, target, status : Tensor (B,)
        Classes and :class:`fsboundary.Status` codes.
    """

    images: Float[Tensor, "B C H W"]
    distance: Float64[Tensor, " B"]
    margin: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
