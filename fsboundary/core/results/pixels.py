"""Results in pixel space: amplification, flip images, certified radii, inverse images, morphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Float64, Int
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
class CertifiedPixels(Result):
    """Balls of pixels around B images in which the predicted class cannot change.

    The distance to the nearest image of another class lies between ``radius`` and ``upper``.

    Attributes
    ----------
    radius : Tensor (B,), float64
        Certified radius, pixel units: no image within it, inside the pixel bounds, has another
        class, for the model in exact arithmetic; also as it computes, if `covers_rounding`. 0 where
        nothing is certified, +inf where no image inside the bounds has another class, NaN where the
        row failed.
    upper : Tensor (B,), float64
        Distance of the nearest known image of another class, as the model itself predicts; +inf
        where none is known. Below ``radius`` only by the rounding of the model, and never where
        that is covered.
    source : Tensor (B,)
        Predicted class of the image, which the ball keeps; -1 where the row is not finite.
    limit : Tensor (B,)
        Class whose face stopped the search: its bound failed at the smallest radius that was tried
        and is not certified. -1 where none did.
    steps : Tensor (B,)
        Number of radii that were tried.
    covers_rounding : Tensor (B,), bool
        Whether the claim is also about the logits that the model's passes compute
        (``arithmetic="floating_point"``), or only about the model in exact arithmetic.
    status : Tensor (B,)
        CONVERGED: certified, and no radius that is larger by more than the tolerance is, with this
        method. UNBOUNDED: the whole box of pixels is certified. MAX_STEPS: certified, the search
        stopped early. UNDECIDED: the method certifies no radius, or the image lies on a boundary.
        NaN rows: INACCURATE where the method was proved wrong, NOT_FINITE.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)).eval()
    >>> with torch.no_grad():
    ...     _ = model[1].weight.copy_(torch.eye(4)[:2])
    >>> image = torch.tensor([0.8, 0.2, 0.5, 0.5]).view(1, 1, 2, 2)
    >>> found = fsb.pixels.certify(fsb.FeatureSpace(model), image)
    >>> round(float(found.radius[0]), 2)  # half of the margin, 0.8 - 0.2
    0.3
    """

    radius: Float64[Tensor, " B"]
    upper: Float64[Tensor, " B"]
    source: Int[Tensor, " B"]
    limit: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]
    covers_rounding: Bool[Tensor, " B"]
    status: Int[Tensor, " B"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.MAX_STEPS: (
            "the radius is certified; the search for a larger one stopped early. Raise max_steps="
        ),
        Status.INACCURATE: (
            "the method was proved wrong: an image of another class lies within its radius. Choose "
            "another method="
        ),
        Status.UNDECIDED: (
            "this method certifies no radius, or the image lies on a boundary. Choose another "
            "method="
        ),
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmoothedClasses(Result):
    """Classes and certified radii of a **smoothed** classifier at B images.

    Not of the model itself: the smoothed classifier gives an image the class that the model gives
    most often to the image with Gaussian noise. The model may have another class at the image, and
    at any image within the radius.

    Attributes
    ----------
    smoothed_class : Tensor (B,)
        Class of the smoothed classifier; -1 where it abstains, and in rows that failed. Each is
        wrong with probability at most the `alpha` of the call.
    smoothed_radius : Tensor (B,), float64
        L2 distance, pixel units, within which the smoothed classifier has that class, for images
        with any pixels. Both claims of a row together fail with probability at most `alpha`. NaN
        where it abstains.
    selected : Tensor (B,)
        Class of most images of the selection sample, whose probability was estimated; -1 in rows
        that failed.
    hits : Tensor (B,)
        How many images of the estimation sample have the selected class.
    probability : Tensor (B,), float64
        Lower bound of the probability of the selected class under noise, at confidence 1 - `alpha`.
    model_class : Tensor (B,)
        Class that the model gives to the image without noise; -1 in rows that failed.
    status : Tensor (B,)
        CONVERGED, UNDECIDED (abstention: the lower bound of the probability is not above 1/2) or
        NOT_FINITE.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.pixels.smoothed(space, images, sigma=0.1, samples=50, selection_samples=10)
    >>> found.selected.shape, bool((found.hits <= 50).all())
    (torch.Size([2]), True)
    """

    smoothed_class: Int[Tensor, " B"]
    smoothed_radius: Float64[Tensor, " B"]
    selected: Int[Tensor, " B"]
    hits: Int[Tensor, " B"]
    probability: Float64[Tensor, " B"]
    model_class: Int[Tensor, " B"]
    status: Int[Tensor, " B"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.UNDECIDED: (
            "the smoothed classifier abstains: no class is shown to have more than half of the "
            "noisy images. Raise samples=, or lower sigma="
        ),
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmoothedDistances(Result):
    """Certified limits of the **median-smoothed** values of a module at B images, T values each.

    Not of the module itself: the smoothed value of an image is the median of the module's values at
    the image with Gaussian noise.

    Attributes
    ----------
    lower, upper : Tensor (B,T), float64
        No image within `radius` of this one, in L2 and with any pixels, has a smoothed value below
        `lower` or above `upper`: each entry fails with probability at most the `alpha` of the call.
        Infinite where the samples give no limit. Units of the module.
    median : Tensor (B,T), float64
        Median of the sample, an estimate of the smoothed value of the image itself; NaN where it is
        a sample without a value.
    radius : Tensor (B,), float64
        Pixel units, as given.
    undefined : Tensor (B,T)
        How many samples had no value (NaN). They count as the smallest value for `lower` and as the
        largest for `upper`.
    status : Tensor (B,T)
        CONVERGED, UNDECIDED where there are too few samples for a limit, or NOT_FINITE.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.pixels.smoothed_distances(
    ...     fsb.attr.BoundaryDistance(space), images, sigma=0.1, radius=0.02, samples=40, alpha=0.05
    ... )
    >>> (found.lower <= found.upper).all().item()
    True
    """

    lower: Float64[Tensor, "B T"]
    upper: Float64[Tensor, "B T"]
    median: Float64[Tensor, "B T"]
    radius: Float64[Tensor, " B"]
    undefined: Int[Tensor, "B T"]
    status: Int[Tensor, "B T"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.UNDECIDED: (
            "too few samples for a limit at this radius, or too many without a value. Raise "
            "samples=, or lower radius="
        ),
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SegmentClasses(Result):
    """Classes on B segments of images from t = 0 to t = 1, computed and not sampled.

    Attributes
    ----------
    classes : Tensor (B, S)
        Classes in the order in which they occur, -1 as padding.
    crossings : Tensor (B, S-1), float64
        Parameter t in (0, 1) at which class s changes to class s + 1, NaN as padding. The image
        there is ``start + t * (end - start)``.
    residual : Tensor (B,), float64
        Largest deviation that the check found, relative to the largest feature or the terms of the
        logits: of the features from straight lines on the pieces, of ties, and of the classes from
        the largest logit in the middle of their stretches.
    pieces : Tensor (B,)
        Number of pieces of the segment, on each of which the body is linear; pooling by maxima may
        divide it more than needed.
    status : Tensor (B,)
        CONVERGED; UNDECIDED where rounding hides which class has the largest logit on some
        stretch, as where two classes tie; INACCURATE where the check found more than rounding;
        MAX_STEPS where there are more pieces than allowed; NOT_FINITE.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)).eval()
    >>> with torch.no_grad():
    ...     _ = model[1].weight.copy_(torch.eye(4)[:2])
    >>> start, end = torch.tensor([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]]).view(2, 1, 1, 2, 2)
    >>> found = fsb.pixels.segment_classes(fsb.FeatureSpace(model), start, end)
    >>> found.classes.tolist(), found.crossings.round(decimals=4).tolist()
    ([[0, 1]], [[0.5]])
    """

    classes: Int[Tensor, "B S"]
    crossings: Float64[Tensor, "B S_1"]
    residual: Float64[Tensor, " B"]
    pieces: Int[Tensor, " B"]
    status: Int[Tensor, " B"]

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {
        Status.UNDECIDED: (
            "two classes tie on a stretch of the segment up to rounding; the path names one of "
            "them. Move an end of the segment"
        ),
        Status.MAX_STEPS: "the segment has more linear pieces than allowed. Raise max_pieces=",
        Status.INACCURATE: (
            "the check of the path found more than rounding: numbers of very different sizes, or "
            "an operation that is not what its trace says. Extract images of the segment instead"
        ),
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
