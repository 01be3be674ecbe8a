"""Results on images that were looked for: flip images, inverse images, morphs, amplification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status

_UNCERTIFIED = (
    "the distance of the image's features from the boundary was not certified. Call flip_points on "
    "the features of this row with another finder"
)
_OUTSIDE = (
    "the features of an image lie outside the domain of the head. Make the FeatureSpace with "
    "domain=Domain.unbounded()"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Amplification(Result):
    """Feature displacements of B images, in feature units, for pixel perturbations of one length.

    Attributes
    ----------
    max_displacement : Tensor (B,), float64
        Largest displacement found.
    max_direction : Tensor (B, C, H, W)
        Pixel perturbation that causes it, scaled to length 1; NaN where no perturbation moves the
        features.
    random_mean, random_max : Tensor (B,), float64
        Mean and largest displacement over random directions.
    towards_flip : Tensor (B,), float64
        Displacement for a perturbation towards the flip image; NaN where none was given.
    singular_value : Tensor (B,), float64
        Largest singular value of the Jacobian at the image, in feature units per pixel unit, as a
        lower bound: the same quantity for sufficiently small perturbations, without pixel bounds.
    boundary_distance : Tensor (B,), float64
        Distance of the image's features from the nearest boundary, feature units.
    vulnerability : Tensor (B,), float64
        Ratio ``max_displacement / boundary_distance``; below 1, no perturbation that was found
        moves the features as far as the boundary.
    predicted : Tensor (B,)
        Class of the image; -1 where a row failed.
    status : Tensor (B,)
        CONVERGED, INFEASIBLE where there is no boundary (distance +inf), or the reason why the row
        failed.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.pixels.amplification(space, images, radius=0.5, directions=3, max_steps=3)
    >>> (found.max_displacement >= found.random_max).tolist()
    [True, True]
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

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: _UNCERTIFIED,
        Status.INACCURATE: _UNCERTIFIED,
        Status.OUTSIDE_DOMAIN: _OUTSIDE,
    }

    def ranking(self) -> Tensor:
        """Return the rows (B,) from the most to the least vulnerable, failed rows last."""
        return self.vulnerability.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FlipImages(Result):
    """Images on a decision boundary, one per row.

    Attributes
    ----------
    images : Tensor (B, C, H, W)
        Images on the boundary, in the dtype of the input; NaN where none was found.
    distance : Tensor (B,), float64
        Distance of the returned image from the row, pixel units.
    residual : Tensor (B,), float64
        Difference of the two largest logits of the returned image divided by that of its largest
        and smallest; for two classes, divided by their difference at the row itself.
    source, target, status : Tensor (B,)
        Classes and :class:`fsboundary.Status` codes.
    num_backwards, num_forwards : Tensor (B,)
        Number of gradients and of other forward passes.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> flips = fsb.pixels.flip_images(space, images, max_steps=10)
    >>> flips.images.shape, bool((flips.images >= 0).all())
    (torch.Size([2, 1, 28, 28]), True)
    """

    images: Float[Tensor, "B C H W"]
    distance: Float64[Tensor, " B"]
    residual: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, " B"]
    status: Int[Tensor, " B"]
    num_backwards: Int[Tensor, " B"]
    num_forwards: Int[Tensor, " B"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: (
            "no image on the boundary was found, which does not prove that there is none. Raise "
            'max_steps=, choose another finder=, or leave targets= at "nearest"'
        ),
        Status.INACCURATE: (
            "the finder's image failed the check: it is no tie of source and target, a third class "
            "is above them, or pixels are out of bounds. Choose another finder="
        ),
        Status.UNDECIDED: "the row has no target, because targets= is -1. Pass a class number",
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CrossedImages(Result):
    """Images of the target class just beyond flip images, with 256 levels, one per row.

    Attributes
    ----------
    images : Tensor (B, C, H, W)
        Images in the dtype of the flip images; NaN where none was found.
    distance : Tensor (B,), float64
        L2 distance of the returned image from the flip image, pixel units.
    margin : Tensor (B,), float64
        Margin of the target over every other class at the returned image, logit units.
    source, target, status : Tensor (B,)
        Classes and :class:`fsboundary.Status` codes.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> flips = fsb.pixels.flip_images(space, images, max_steps=10)
    >>> crossed = fsb.pixels.crossed_images(space, flips, margin=0.1)
    >>> (crossed.margin >= 0.1).tolist()
    [True, True]
    """

    images: Float[Tensor, "B C H W"]
    distance: Float64[Tensor, " B"]
    margin: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    target: Int[Tensor, " B"]
    status: Int[Tensor, " B"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: "no image with this margin was found. Lower margin=",
        Status.INACCURATE: "there is no flip image here. Choose another finder in flip_images",
        Status.UNDECIDED: "there is no flip image here, because it had no target",
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class InverseImages(Result):
    """Images whose features approximate B given ones, from S starts each.

    Every number is measured on the returned image, so it is valid at any status.

    Attributes
    ----------
    images : Tensor (B, S, C, H, W)
        Images in the dtype of the starts and within the bounds; NaN where a row failed.
    features : Tensor (B, S, d), float64
        Features of the images.
    residual : Tensor (B, S), float64
        Distance of these features from the given ones, feature units.
    relative_residual : Tensor (B, S), float64
        Residual divided by the norm of the given features (by 1 where that is 0).
    predicted : Tensor (B, S)
        Class of the image; -1 where a row failed.
    boundary_distance : Tensor (B, S), float64
        Distance of the image's features from the nearest boundary in feature space; if the given
        features are those of a flip point, the distance left to the boundary.
    spread : Tensor (B,), float64
        Mean distance in pixels between the images of different starts, a measure of how far the
        solution is from unique. NaN with fewer than two images.
    status : Tensor (B, S)
        CONVERGED: relative residual at most 0.01. MAX_STEPS: larger, and the image is the best one
        found. NaN rows: INACCURATE where no step came nearer than the start, OUTSIDE_DOMAIN where
        no image has such features, NOT_FINITE.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> target = space.extract(images).features
    >>> found = fsb.pixels.inverse_images(space, target, demo.test_images[2:4], max_steps=5)
    >>> found.best().images.shape, bool((found.relative_residual < 1).all())
    (torch.Size([2, 1, 1, 28, 28]), True)
    """

    images: Float[Tensor, "B S C H W"]
    features: Float64[Tensor, "B S d"]
    residual: Float64[Tensor, "B S"]
    relative_residual: Float64[Tensor, "B S"]
    predicted: Int[Tensor, "B S"]
    boundary_distance: Float64[Tensor, "B S"]
    spread: Float64[Tensor, " B"]
    status: Int[Tensor, "B S"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: (
            "the image is the nearest found, but its relative residual is above 0.01; perhaps no "
            "image has these features. Raise max_steps=, or pass other images or more of them as "
            "start="
        ),
        Status.INACCURATE: (
            "no step came nearer to the features than the start. Pass other images as start="
        ),
        Status.OUTSIDE_DOMAIN: (
            "no image has features outside the domain. Pass features= inside it, such as "
            "FeatureSpace.domain.clip(features)"
        ),
        Status.NOT_FINITE: (
            "features= or start= contain NaN or infinite values here. Leave the row out, or pass "
            "another start="
        ),
    }

    def best(self) -> InverseImages:
        """Return the image with the smallest residual of each row, so S = 1; ``spread`` is kept."""
        first = self.residual.nan_to_num(nan=torch.inf).argmin(dim=1)
        rows = torch.arange(len(first), device=first.device)
        fields = {
            name: value if name == "spread" else value[rows, first][:, None]
            for name, value in self.to_dict().items()
        }
        return InverseImages(**fields)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Morph(Result):
    """B paths of N images whose features follow given paths, with plain blending for comparison.

    A row that failed is NaN, with class -1.

    Attributes
    ----------
    times : Tensor (B, N), float64
        Parameter t in [0, 1] of each frame.
    images, blend : Tensor (B, N, C, H, W)
        Frames of the morph, and of the straight line in pixel space between its ends.
    features : Tensor (B, N, d), float64
        Features of ``images``.
    off_path : Tensor (B, N), float64
        Distance of these features from the feature path, divided by the norm of the path's features
        (by 1 where that is 0).
    logits, blend_logits : Tensor (B, N, K), float64
        Logits of the frames.
    predicted, blend_predicted : Tensor (B, N)
        Predicted classes of the frames.
    crossing, blend_crossing : Tensor (B,), float64
        Parameter t at which the images first leave the class of the start, to within 1e-4, searched
        on the line between the first two frames of different classes. NaN if no frame leaves it.
    feature_crossing : Tensor (B,), float64
        Same parameter for the feature path, computed instead of sampled.
    largest_jump, blend_largest_jump : Tensor (B,), float64
        Largest distance in pixels between consecutive frames.
    status : Tensor (B,)
        CONVERGED: ``off_path`` at most 0.03 everywhere. MAX_STEPS: larger somewhere; the measured
        numbers are valid anyway. NaN rows: the reason why the row has no path.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> film = fsb.pixels.morph(space, images[:1], images[1:], steps=4, max_steps=5)
    >>> film.times.round(decimals=3).tolist()
    [[0.0, 0.333, 0.667, 1.0]]
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

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: (
            "features of some frames are farther than 0.03 from the path, see off_path; perhaps no "
            'image has features on it. Raise max_steps=, or pass via="straight"'
        ),
        Status.INACCURATE: (
            "the flip point on the path was not certified. Pass images of another class as end="
        ),
        Status.OUTSIDE_DOMAIN: _OUTSIDE,
        Status.TARGET_IS_SOURCE: (
            "start= and end= are of one class, so there is no flip point. Pass another end=, or "
            'via="straight" if it is an image'
        ),
    }
