"""Paths of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result


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
