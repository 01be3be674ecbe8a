"""Checks of the arguments of the functions that take a model and images."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fsboundary.core.checks import Shape, check_float_tensor, check_labels, distinct_texts
from fsboundary.core.errors import ArgumentError
from fsboundary.models.inputs import check_floats, model_arguments
from fsboundary.modes import caller_level, in_standard_modes
from fsboundary.space import FeatureSpace, space_of

_ROUNDING = 1e-6
"""Fraction of the range by which pixels may lie beyond it: a few units of float32."""


def check_bounds(bounds: object) -> tuple[float, float]:
    """Return the pixel bounds as two floats, or raise ArgumentError."""
    wanted = "two finite numbers, the lower first"
    fix = "pass (0, 1), or what the user's own pixels lie between"
    try:
        low, high = (float(b) for b in bounds)  # type: ignore[attr-defined]  # raises if not a pair
    except (TypeError, ValueError):
        raise ArgumentError("bounds", repr(bounds), wanted, fix) from None
    if not -torch.inf < low < high < torch.inf:
        raise ArgumentError("bounds", repr(bounds), wanted, fix)
    return low, high


_NO_PIXELS = (
    "only images have pixels to change; images of integers need .float(), scaled as in training. "
    "For token ids and other inputs, use FeatureSpace.extract(inputs) with flip_points, "
    "region_distances, hull_projection and guaranteed_balls, and for attribution BoundaryDistance "
    "or LayerBoundaryDirection at a layer"
)


def check_pixels(
    images: object,
    bounds: tuple[float, float] | None,
    name: str = "images",
    *,
    like: Tensor | None = None,
    nonempty: bool = False,
    finite_fix: str | None = None,
) -> Tensor:
    """Return argument `name` (B,C,H,W), detached, or raise ArgumentError.

    Parameters
    ----------
    images : object
        Value of the argument.
    bounds : (float, float) or None
        Range of the finite pixels; None means any. Pixels beyond by no more than rounding, 1e-6 of
        the range or 4 units in the last place of 1 in their dtype, are clipped to it: undoing a
        normalisation in float32 gives such pixels.
    name : str
        Name of the argument.
    like : Tensor (B, C, H, W), optional
        Images of which these must have the shape.
    nonempty : bool
        Whether there must be an image and a pixel.
    finite_fix : str, optional
        Instruction about NaN and infinite pixels, which are accepted without it.
    """
    one = "pass torch.as_tensor(batch), scaled as in training; a single image needs [None]"
    check_floats(name, images, ("B", ...), fix=one, otherwise=_NO_PIXELS)
    shape: Shape = ("B", "C", "H", "W") if like is None else tuple(like.shape)
    fix = "a single image needs [None]" if like is None else "pass one image for each image"
    pixels = check_float_tensor(
        name, images, shape, fix=fix, nonempty=nonempty, finite_fix=finite_fix
    )
    if bounds is None:
        return pixels
    finite = torch.isfinite(pixels)
    low, high = torch.tensor(bounds, dtype=pixels.dtype, device=pixels.device)
    beyond = finite & ((pixels < low) | (pixels > high))
    if not bool(beyond.any()):
        return pixels
    lowest, highest = (float(t) for t in torch.aminmax(pixels[finite]))
    slack = max(_ROUNDING, 4 * torch.finfo(pixels.dtype).eps) * (bounds[1] - bounds[0])
    if lowest < float(low) - slack or highest > float(high) + slack:
        texts = distinct_texts(lowest, highest, *bounds)
        raise ArgumentError(
            name,
            f"pixels from {texts[0]} to {texts[1]}",
            f"pixels from {texts[2]} to {texts[3]}",
            "pass bounds=, or scale the images and pass the model's own scaling as "
            "FeatureSpace(model, preprocess=...)",
        )
    return torch.where(beyond, pixels.clamp(low, high), pixels)


_NEAR_CHANCE = 1 / 3
"""Position between chance (0) and perfect accuracy (1) below which an accuracy is near chance."""


@in_standard_modes
def check_accuracy(
    model: nn.Module | FeatureSpace, inputs: Any, labels: Tensor, *, batch_size: int = 256
) -> float:
    """Return the fraction of examples that the model assigns to the class of their label.

    A model without its preprocessing still predicts classes, but with an accuracy near chance; a
    UserWarning reports such an accuracy.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
    inputs : Tensor (B, ...) or other structure
        Inputs of the model, as for :meth:`fsboundary.FeatureSpace.extract`.
    labels : Tensor (B,)
        Class numbers; -1 for no label.
    batch_size : int
        Number of examples per batch.

    Returns
    -------
    float
        Accuracy in [0, 1]; NaN without labelled examples. Those that are not finite and those
        without a label do not count.

    Raises
    ------
    ArgumentError
        Not one label for each example, or a label that is no class of the model.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> round(fsb.pixels.check_accuracy(space, demo.test_images, demo.test_labels), 3)
    0.94
    """
    space = space_of(model)
    rows = model_arguments(space.model, inputs).rows
    classes = check_labels(labels, rows)
    if rows == 0:
        return math.nan
    predicted = space.extract(inputs, batch_size=batch_size).predicted
    return measure_accuracy(predicted, classes, space.head.num_classes)


def measure_accuracy(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Return the fraction of `predicted` (B,) that equal `labels`; warn if it is near chance.

    Rows predicted as -1 and rows without a label do not count; NaN without any other. The warning
    points to the caller of the function that calls this one.

    Raises
    ------
    ArgumentError
        A label that is no class of the model.
    """
    labels = check_labels(labels, len(predicted), num_classes=num_classes).to(predicted.device)
    known = (predicted >= 0) & (labels >= 0)
    correct = predicted[known] == labels[known]
    accuracy = float(correct.double().mean())
    chance, threshold = chance_levels(num_classes)
    if accuracy < threshold:
        warnings.warn(
            f"labels: got {100 * accuracy:.1f} % of {len(correct)} images assigned to the class of "
            f"their label, where chance is {100 * chance:.1f} %; wanted at least "
            f"{100 * threshold:.1f} %. Is the model's preprocessing missing? Pass it as "
            "FeatureSpace(model, preprocess=...), or leave labels out if these images were chosen "
            "because the model misclassifies them.",
            stacklevel=caller_level(),
        )
    return accuracy


def chance_levels(num_classes: int) -> tuple[float, float]:
    """Return the accuracy of guessing, and the one below which an accuracy is near chance."""
    chance = 1 / num_classes
    return chance, chance + _NEAR_CHANCE * (1 - chance)
