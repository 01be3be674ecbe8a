"""Pixel statistics at the first batch normalisation, compared with those of its training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsboundary.core.errors import FsboundaryError
from fsboundary.space import FeatureSpace

MIN_IMAGES = 16
"""Fewer images say little about a distribution."""

MAX_IMAGES = 128

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


@final
class _Watch:
    """Moments of the channels that arrive at the layer that is reached first."""

    def __init__(self) -> None:
        self.name, self.layer = "", nn.Module()
        self.count = 0
        self.sums, self.squares = torch.zeros(()), torch.zeros(())

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """Return the hook of the layer `name`."""

        def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            values = inputs[0] if inputs else None
            if not isinstance(values, Tensor) or values.ndim < 2 or values.is_meta:
                return
            if self.name not in ("", name):
                return
            self.name, self.layer = name, layer
            rows = values.detach().flatten(2) if values.ndim > 2 else values.detach()[..., None]
            rows = rows[rows.flatten(1).isfinite().all(dim=1)].float()
            if len(rows):
                variance, mean = torch.var_mean(rows, dim=(0, 2), correction=0)
                variance, mean = variance.to("cpu", torch.float64), mean.to("cpu", torch.float64)
                number = rows.numel() // rows.shape[1]
                self.count += number
                self.sums = self.sums + number * mean
                self.squares = self.squares + number * (variance + mean.square())

        return note

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each channel, float64."""
        mean = self.sums / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0).sqrt()


def input_statistics(
    space: FeatureSpace, images: Tensor, batch_size: int = MAX_IMAGES
) -> InputStatistics | None:
    """Return the statistics of `images` (N, C, H, W) at the first trained batch normalisation.

    None if the model has no such layer, if it cannot be watched, or for fewer than MIN_IMAGES.
    Images that are not finite do not count. Images that pass twice, because the first batch is
    also that in which the head is found, count twice.
    """
    layers = [(name, layer) for name, layer in space.model.named_modules() if _is_trained(layer)]
    if not layers or len(images) < MIN_IMAGES:
        return None
    chosen = torch.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().long()
    watch = _Watch()
    # the notes of `space` are about its own passes; a head that was fitted would be lost in a copy
    watched = space if space.surrogate else copy.copy(space)
    handles = [layer.register_forward_pre_hook(watch.hook(name)) for name, layer in layers]
    try:
        watched.extract(images[chosen], batch_size=batch_size)
    except (FsboundaryError, RuntimeError):
        return None  # a model that accepts no hook: nothing is said
    finally:
        for handle in handles:
            handle.remove()
    return _compare(len(chosen), watch) if watch.count else None


def _is_trained(layer: nn.Module) -> bool:
    """Return whether `layer` is a batch normalisation whose statistics are not the initial ones."""
    if not isinstance(layer, _BatchNorm) or layer.running_mean is None or layer.running_var is None:
        return False
    return bool((layer.running_mean != 0).any()) or bool((layer.running_var != 1).any())


def _compare(images: int, watch: _Watch) -> InputStatistics | None:
    """Compare what arrived at the layer with what it expects."""
    layer: Any = watch.layer
    expected_mean, variance = (
        one.detach().to("cpu", torch.float64) for one in (layer.running_mean, layer.running_var)
    )
    mean, deviation = watch.moments()
    offset = mean - expected_mean
    # channels that were nearly constant in training have no scale
    usable = variance > 1e-3 * variance.median()
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
        layer=watch.name,
        images=images,
        channels=len(variance),
        spread=float(spread.median()),
        shift=float(shift.median()),
        verdict=verdict,
    )
