"""How far features move for a small move of the image.

Flip images, and images across the boundary.

Images that have given features, or nearly.

Paths of images.
"""

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
    max_displacement : Tensor (B,), float64
        The longest move that was found.
    max_direction : Tensor (B, C, H, W)
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

    max_displacement: Float64[Tensor, " B"]
    max_direction: Float[Tensor, "B C H W"]
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
    num_backwards, num_forwards : Tensor (B,)
        Gradients and other forward passes spent.
    """

    images: Float[Tensor, "B C H W"]
    distance: Float64[Tensor, " B"]
    residual: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    num_backwards: Int[Tensor, " B"]
    num_forwards: Int[Tensor, " B"]


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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Morph(Result):
    """B paths of N images whose features follow given paths, and plain blending beside them.

    A row that failed is NaN, with class -1.

    Attributes
    ----------
    times : Tensor (B, N), float64
        t in [0, 1] of each frame.
    images, blend : Tensor (B, N, C, H, W)
        Frames of the morph, and of the straight line in pixels between its ends.
    features : Tensor (B, N, d), float64
        What the body gives for ``images``.
    off_path : Tensor (B, N), float64
        Distance of these from the feature path, over the norm of the path's own features (over 1
        where that is 0).
    logits, blend_logits : Tensor (B, N, K), float64
    predicted, blend_predicted : Tensor (B, N)
        Classes met.
    crossing, blend_crossing : Tensor (B,), float64
        t at which the images first leave the class of the start, within 1e-4, found between the
        first two frames of different class, on the line between these. NaN if no frame leaves it.
    feature_crossing : Tensor (B,), float64
        The same of the feature path: computed, not sampled.
    largest_jump, blend_largest_jump : Tensor (B,), float64
        Largest distance in pixels between neighbouring frames.
    status : Tensor (B,)
        CONVERGED: ``off_path`` at most 0.03 everywhere. MAX_STEPS: above somewhere; what is
        measured holds all the same. NaN rows: why the row has no path.
    """

    times: Float64[Tensor, "B N"]
    images: Float[Tensor, "B N C H W"]
    blend: Float[Tensor, "B N C H W"]
    features: Float64[Tensor, "B N d"]
    off_path: Float64[Tensor, "B N"]
    logits: Float64[Tensor, "B N K"]
    blend_logits: Float64[Tensor, "B N K"]
    predicted: Int[Tensor, "B N"]
    blend_predicted: Int[Tensor, "B N"]
    crossing: Float64[Tensor, " B"]
    blend_crossing: Float64[Tensor, " B"]
    feature_crossing: Float64[Tensor, " B"]
    largest_jump: Float64[Tensor, " B"]
    blend_largest_jump: Float64[Tensor, " B"]
    status: Int[Tensor, " B"]
