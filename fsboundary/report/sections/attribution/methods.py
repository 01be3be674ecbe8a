"""The attribution methods of a report, run one by one, so that one that fails fails alone."""

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

Answer = TypeVar("Answer")

REFERENCE = "boundary"

DRAWS = 16
"""Steps of Integrated Gradients, draws of GradientShap, windows of Occlusion at once."""

BACKGROUND = 16
"""Images that GradientShap draws its baselines from."""

WINDOWS = 7
"""An occluding window has this part of the image's height and width, rounded up."""

STRIDES = 10
"""It moves by this part of them."""

LONGEST_ERROR = 200
"""Characters of an error that the page shows."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """A method and what its ``attribute`` takes.

    Attributes
    ----------
    name, title : str
        For the JSON and for the page.
    make : callable
        Makes the method from a model.
    options : dict
    draws : int
        Images that it makes of each at once.
    """

    name: str
    title: str
    make: Callable[[nn.Module], Attribution]
    options: dict[str, Any]
    draws: int = DRAWS


def window_and_stride(images: Tensor) -> tuple[list[int], list[int]]:
    """Return height and width of the occluding window, and how far it moves in each."""
    sides = images.shape[2:]
    return [math.ceil(s / WINDOWS) for s in sides], [math.ceil(s / STRIDES) for s in sides]


def methods_of(subject: Subject, background: Tensor) -> list[Method]:
    """Return the methods, our boundary direction first.

    Parameters
    ----------
    subject : Subject
    background : Tensor (R, C, H, W)
        Baselines of GradientShap; all other baselines are black.
    """
    window, stride = window_and_stride(subject.images)
    channels = subject.images.shape[1]
    occlusion = {
        "sliding_window_shapes": (channels, *window),
        "strides": (channels, *stride),
        "perturbations_per_eval": DRAWS,
    }
    shap = {"baselines": background, "n_samples": DRAWS}
    return [
        Method(
            name=REFERENCE,
            title="Boundary direction",
            make=lambda _: BoundaryDirection(subject.space),
            options={},
            draws=1,
        ),
        Method(
            name="integrated_gradients",
            title="Integrated Gradients",
            make=IntegratedGradients,
            options={"n_steps": DRAWS},
        ),
        Method(name="saliency", title="Saliency", make=Saliency, options={"abs": False}, draws=1),
        Method(name="occlusion", title="Occlusion", make=Occlusion, options=occlusion),
        Method(name="gradient_shap", title="GradientShap", make=GradientShap, options=shap),
    ]


def run_method(subject: Subject, method: Method, images: Tensor, seed: int) -> Tensor | str:
    """Return the attribution (B, C, H, W) for the predicted classes, or what went wrong."""

    def run() -> Tensor:
        # under the reference's name, so that the reference is not run beside each other method
        found = attribute_methods(
            subject.space,
            images,
            {REFERENCE: method.make},
            options={REFERENCE: method.options},
            batch_size=max(1, subject.batch_size // method.draws),
            seed=seed,
        )
        return found[REFERENCE]

    return attempt(run)


def attempt(run: Callable[[], Answer]) -> Answer | str:
    """Return what `run` returns, or the error that it raised as one line of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page counts what the warnings are about
        try:
            return run()
        except Exception as error:  # a stranger's model may raise anything, and the report goes on
            return _line(error)


def _line(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= LONGEST_ERROR else words[: LONGEST_ERROR - 1] + "…"


def background_of(subject: Subject, seed: int) -> Tensor:
    """Return BACKGROUND of the training images, or of the images where there are none."""
    images = subject.images if subject.train_images is None else subject.train_images
    usable = torch.isfinite(images).flatten(1).all(dim=1).nonzero()[:, 0].cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(usable), generator=generator)[:BACKGROUND]
    return images[usable[drawn].to(images.device)].to(subject.images)
