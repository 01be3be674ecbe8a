"""Attribution methods of a report, run separately so that a failure affects only one method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
from captum.attr import Attribution, GradientShap, IntegratedGradients, Occlusion, Saliency
from torch import Tensor, nn

from fsboundary.attr import BoundaryDirection, attribute_methods
from fsboundary.report.measurements import Subject

T = TypeVar("T")

REFERENCE = "boundary"

NUM_SAMPLES = 16
"""Steps of Integrated Gradients, samples of GradientShap, and windows of Occlusion per pass."""

BACKGROUND = 16
"""Number of images from which GradientShap samples its baselines."""

WINDOWS = 7
"""Image height and width over those of the occluding window, which are rounded up."""

STRIDES = 10
"""Image height and width over the strides of the occluding window, which are rounded up."""

MAX_ERROR_LENGTH = 200
"""Largest number of characters of an error on the page."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """A method and the options of its ``attribute``.

    Attributes
    ----------
    name, title : str
        Name in the JSON and title on the page.
    make : callable
        Function that makes the method from a model.
    options : dict
    num_samples : int
        Number of images per pass into which the method expands each image.
    """

    name: str
    title: str
    make: Callable[[nn.Module], Attribution]
    options: dict[str, Any]
    num_samples: int = NUM_SAMPLES


def window_and_stride(images: Tensor) -> tuple[list[int], list[int]]:
    """Return height and width of the occluding window, and its strides."""
    sides = images.shape[2:]
    return [math.ceil(s / WINDOWS) for s in sides], [math.ceil(s / STRIDES) for s in sides]


def make_methods(subject: Subject, background: Tensor) -> list[Method]:
    """Return the methods, the boundary direction first.

    Parameters
    ----------
    subject : Subject
    background : Tensor (R, C, H, W)
        Baselines of GradientShap; the baselines of all other methods are black.
    """
    window, stride = window_and_stride(subject.images)
    channels = subject.images.shape[1]
    occlusion = {
        "sliding_window_shapes": (channels, *window),
        "strides": (channels, *stride),
        "perturbations_per_eval": NUM_SAMPLES,
    }
    shap = {"baselines": background, "n_samples": NUM_SAMPLES}
    return [
        Method(
            name=REFERENCE,
            title="Boundary direction",
            make=lambda _: BoundaryDirection(subject.space),
            options={},
            num_samples=1,
        ),
        Method(
            name="integrated_gradients",
            title="Integrated Gradients",
            make=IntegratedGradients,
            options={"n_steps": NUM_SAMPLES},
        ),
        Method(
            name="saliency",
            title="Saliency",
            make=Saliency,
            options={"abs": False},
            num_samples=1,
        ),
        Method(name="occlusion", title="Occlusion", make=Occlusion, options=occlusion),
        Method(name="gradient_shap", title="GradientShap", make=GradientShap, options=shap),
    ]


def run_method(subject: Subject, method: Method, images: Tensor, seed: int) -> Tensor | str:
    """Return the attribution (B, C, H, W) for the predicted classes, or the error."""

    def run() -> Tensor:
        # under the reference's name, so that the reference is not run again with each method
        attributions = attribute_methods(
            subject.space,
            images,
            {REFERENCE: method.make},
            options={REFERENCE: method.options},
            batch_size=max(1, subject.batch_size // method.num_samples),
            seed=seed,
        )
        return attributions[REFERENCE]

    return try_run(run)


def try_run(run: Callable[[], T]) -> T | str:
    """Return the result of `run`, or the error that it raised as one line of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page reports the affected images itself
        try:
            return run()
        except Exception as error:  # a user's model may raise anything; the report continues
            return _error_line(error)


def _error_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"


def shap_baselines(subject: Subject, seed: int) -> Tensor:
    """Return BACKGROUND random training images, or images if there are no training images."""
    images = subject.images if subject.train_images is None else subject.train_images
    usable = torch.isfinite(images).flatten(1).all(dim=1).nonzero()[:, 0].cpu()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(usable), generator=generator)[:BACKGROUND]
    return images[usable[chosen].to(images.device)].to(subject.images)
