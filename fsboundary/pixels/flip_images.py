"""Flip images: images on a decision boundary, as near to given ones as can be found."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.models.images import check_batch_size
from fsboundary.pixels.checks import (
    check_bounds,
    check_classes,
    check_labels,
    check_pixels,
    told_accuracy,
)
from fsboundary.pixels.model_calls import first_logits
from fsboundary.plugins import create
from fsboundary.plugins.grading.images import find_and_grade_images
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.space import FeatureSpace, space_of

MAX_STEPS = 150
"""Default limit of gradients an image; a backward pass through the model each."""


def flip_images(
    model: nn.Module | FeatureSpace,
    images: Float[Tensor, "B C H W"],
    targets: Literal["nearest"] | Int[Tensor, " B"] = "nearest",
    *,
    norm: Literal["l2", "linf"] = "l2",
    finder: str | ImageBoundaryFinder = "feature_guided",
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    labels: Int[Tensor, " B"] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    show_progress: bool = False,
) -> FlipImages:
    """Return images on a decision boundary, as near to `images` as `finder` can find.

    That a returned image lies on the boundary is certified: source and target tie for the
    largest logit within 1e-4 of the range of the logits, computed by the model from the image as
    returned, and every pixel is within bounds. Two logits have no range where they tie: theirs is
    taken from the row itself. That no nearer image exists is not certified: the problem is not
    convex. The source of a row is the model's own class, also for misclassified images.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        In eval mode. A space with ``preprocess=`` keeps pixels the user's own.
    images : Tensor (B, C, H, W)
        Floating point, within `bounds`.
    targets : "nearest" or integer Tensor (B,)
        "nearest": whichever other class is met first.
    norm : {"l2", "linf"}
        What "near" means.
    finder : str or ImageBoundaryFinder
        Name of a plugin ("feature_guided", "ddn", ...) or an instance.
    bounds : (float, float)
        The least and the largest pixel.
    max_steps : int, optional
        Limit of gradients an image, default 150.
    labels : integer Tensor (B,), optional
        The true classes: a UserWarning tells where the model's accuracy is near chance, as that of
        a model is whose preprocessing was left out. They change nothing else.
    batch_size : int
        Images at once.
    seed : int
        For finders that draw random numbers; the global generator is left as it is.
    show_progress : bool

    Returns
    -------
    FlipImages
        In the dtype of `images`. A row without an image on the boundary is NaN: MAX_STEPS where
        none was found, INACCURATE where the finder's image failed the check, NOT_FINITE,
        TARGET_IS_SOURCE. An image that is an exact tie already is its own flip image, at
        distance 0.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, pixels out of bounds, or images that the model does
        not take, before any work.
    HeadError, HeadMismatchError
        The model has no linear head that can be verified.
    PluginError
        The finder raised or answered in the wrong shape.
    """
    space = space_of(model)
    limits = check_bounds(bounds)
    pixels = check_pixels(images, limits)
    check_batch_size(batch_size)
    if norm not in ("l2", "linf"):
        raise ArgumentError("norm", repr(norm), "'l2' or 'linf'", "choose one of these")
    limit = MAX_STEPS if max_steps is None else max_steps
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ArgumentError("max_steps", repr(max_steps), "a positive integer", "leave it out")
    if labels is not None:
        check_labels(labels, len(pixels))
    plugin = create("boundary_finder", finder, capability="pixels")
    with torch.inference_mode(False):  # finders need gradients whatever the caller's mode
        pixels = pixels.clone()
        logits = first_logits(space, pixels, batch_size)
        target = check_classes(targets, len(pixels), logits.shape[1])
        fields = _unsolved(pixels, logits, target)
        if labels is not None and len(pixels):
            told_accuracy(fields["source"], labels, logits.shape[1])
        open_rows = (fields["status"] == Status.UNDECIDED).nonzero()[:, 0]
        devices = [pixels.device] if pixels.is_cuda else []
        with (
            torch.random.fork_rng(devices),
            tqdm(total=len(open_rows), unit="image", disable=not show_progress) as bar,
        ):
            for rows in open_rows.split(batch_size) if len(open_rows) else ():
                torch.manual_seed(seed)
                graded = find_and_grade_images(
                    plugin,
                    space,
                    pixels[rows],
                    logits[rows],
                    target.to(rows.device)[rows] if isinstance(target, Tensor) else target,
                    bounds=limits,
                    norm=norm,
                    max_steps=limit,
                ).to_dict()
                graded["num_forwards"] = graded["num_forwards"] + fields["num_forwards"][rows]
                for name, values in graded.items():
                    fields[name][rows] = values
                bar.update(len(rows))
    return FlipImages(**fields)


def _unsolved(
    images: Tensor, logits: Tensor, targets: Tensor | Literal["nearest"]
) -> dict[str, Tensor]:
    """Return the fields before the search: rows that need none are final, others UNDECIDED."""
    finite = torch.isfinite(logits).all(dim=1)
    top, order = logits.topk(2, dim=1)
    source = torch.where(finite, logits.argmax(dim=1), -1)
    if isinstance(targets, Tensor):
        target = targets.to(images.device)
    else:
        target = torch.full_like(source, -1)
    status = torch.where(finite, int(Status.UNDECIDED), int(Status.NOT_FINITE))
    status[finite & (target == source)] = int(Status.TARGET_IS_SOURCE)
    # where all logits of several are equal there is no boundary to be on
    apart = (top[:, 0] > logits.amin(dim=1)) | (logits.shape[1] == 2)
    tie = finite & (top[:, 0] == top[:, 1]) & apart
    runner_up = torch.where(order[:, 0] == source, order[:, 1], order[:, 0])
    wanted = runner_up if not isinstance(targets, Tensor) else target
    tie &= (target != source) & (logits.gather(1, wanted.clamp_min(0)[:, None])[:, 0] == top[:, 0])
    status[tie] = int(Status.CONVERGED)
    zero = torch.where(tie, 0.0, torch.nan).to(torch.float64)
    return {
        "images": torch.where(tie[:, None, None, None], images, torch.nan),
        "distance": zero,
        "residual": zero.clone(),
        "source": source,
        "target": torch.where(tie, wanted, target),
        "status": status,
        "num_backwards": torch.zeros_like(source),
        # the pass that found the classes
        "num_forwards": finite.long(),
    }
