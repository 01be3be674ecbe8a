"""Pixel statistics at the first batch normalisation, compared with those of its training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsboundary.core.errors import FsboundaryError
from fsboundary.space import FeatureSpace

MIN_IMAGES = 16
"""Fewer images say little about a distribution."""

MAX_IMAGES = 256

SPREAD = 1.7
"""Factor between the spread of most channels and the expected one from which it is suspicious.

Between images that the model was trained for and others of the same kind it is below 1.3. Where the
usual normalisation is left out, it is 2 (pixels expected in [-1, 1]) to 4.5 (that of ImageNet).
"""

SHIFT = 1.5
"""Standard deviations between the mean of most channels and the expected one, likewise.

Most channels of a convolution are differences of pixels, whose mean does not show a shift.
"""

MOST = 0.75
"""Fraction of the channels that "most" stands for: in grey images, those of a network for colours
that respond to colour are constant."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """What arrives at the first batch normalisation, relative to what it was trained with.

    Attributes
    ----------
    layer : str
        Dotted name of the layer in the model.
    images, channels : int
    spread : float
        Median over the channels of the standard deviation, relative to the expected one.
    shift : float
        Median over the channels of the distance from the expected mean, in expected standard
        deviations.
    verdict : str
        "as expected", "smaller", "larger" or "shifted".
    """

    layer: str
    images: int
    channels: int
    spread: float
    shift: float
    verdict: str


def input_statistics(space: FeatureSpace, images: Tensor) -> InputStatistics | None:
    """Return the statistics of `images` (N, C, H, W) at the first trained batch normalisation.

    None if the model has no such layer, if it cannot be watched, or for fewer than MIN_IMAGES.
    """
    layers = [(name, layer) for name, layer in space.model.named_modules() if _is_trained(layer)]
    if not layers or len(images) < MIN_IMAGES:
        return None
    chosen = torch.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().long()
    arrived: list[tuple[str, nn.Module, Tensor]] = []

    def watch(name: str) -> Any:
        def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            values = inputs[0] if inputs else None
            if not isinstance(values, Tensor) or values.ndim < 2:
                return
            # of the layer that is reached first, the largest batch: others look for the head
            if not arrived or (arrived[0][0] == name and len(values) > len(arrived[0][2])):
                arrived[:] = [(name, layer, values.detach())]

        return note

    # the notes of `space` are about its own passes; a head that was fitted would be lost in a copy
    watched = space if space.surrogate else copy.copy(space)
    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers]
    try:
        watched.extract(images[chosen], batch_size=len(chosen))
    except (FsboundaryError, RuntimeError):
        return None  # a model that accepts no hook or no batch of this size: nothing is said
    finally:
        for handle in handles:
            handle.remove()
    return _compare(len(chosen), *arrived[0]) if arrived else None


def _is_trained(layer: nn.Module) -> bool:
    """Return whether `layer` is a batch normalisation whose statistics are not the initial ones."""
    if not isinstance(layer, _BatchNorm) or layer.running_mean is None or layer.running_var is None:
        return False
    return bool((layer.running_mean != 0).any()) or bool((layer.running_var != 1).any())


def _compare(images: int, name: str, layer: Any, values: Tensor) -> InputStatistics | None:
    """Compare what arrived at `layer`, (N, channels, ...), with what it expects."""
    mean, variance, channels = (
        one.detach().to("cpu", torch.float64)
        for one in (layer.running_mean, layer.running_var, values.transpose(0, 1).flatten(1))
    )
    deviation, offset = channels.std(dim=1, correction=0), channels.mean(dim=1) - mean
    # channels that were nearly constant in training have no scale
    usable = variance > 1e-3 * variance.median()
    usable &= deviation.isfinite() & offset.isfinite()
    if not bool(usable.any()):
        return None
    expected = variance[usable].sqrt()
    spread, shift = deviation[usable] / expected, offset[usable].abs() / expected
    verdict = "as expected"
    if float(spread.quantile(MOST)) < 1 / SPREAD:
        verdict = "smaller"
    elif float(spread.quantile(1 - MOST)) > SPREAD:
        verdict = "larger"
    elif float(shift.quantile(1 - MOST)) > SHIFT:
        verdict = "shifted"
    return InputStatistics(
        layer=name,
        images=images,
        channels=len(variance),
        spread=float(spread.median()),
        shift=float(shift.median()),
        verdict=verdict,
    )
