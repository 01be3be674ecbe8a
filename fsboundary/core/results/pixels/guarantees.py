"""Results on what holds for all images of a set: certified radii, smoothing, segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status


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
