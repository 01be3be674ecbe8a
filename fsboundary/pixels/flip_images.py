"""Flip images: images on a decision boundary as near to given images as a finder can find.

Elsewhere they are called minimal adversarial examples or counterfactuals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.core.checks import check_choice, check_integer, check_labels, check_targets
from fsboundary.core.results import FlipImages
from fsboundary.core.rows import TensorOrArray, write_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes, seeded
from fsboundary.pixels.checks import check_bounds, check_pixels, measure_accuracy
from fsboundary.pixels.model_calls import first_logits
from fsboundary.plugins import create
from fsboundary.plugins.grading.images import find_and_grade_images
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of

MAX_STEPS = 150
"""Default limit of gradients per image; each is a backward pass through the model."""

_NEAREST: tuple[Literal["nearest"]] = ("nearest",)


@in_standard_modes
def flip_images(
    model: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "B C H W"],
    targets: Literal["nearest"] | Int[TensorOrArray, " B"] = "nearest",
    *,
    norm: Literal["l2", "linf"] = "l2",
    finder: str | ImageBoundaryFinder = "feature_guided",
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    labels: Int[TensorOrArray, " B"] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    show_progress: bool = False,
) -> FlipImages:
    """Return images on a decision boundary, as near to `images` as `finder` can find.

    That a returned image lies on the boundary is certified: source and target tie for the
    largest logit within 1e-4 of the range of the logits, computed by the model from the image as
    returned, and every pixel is within bounds. Two logits that tie have no range, so with two
    classes it is taken from the row itself. That no nearer image exists is not certified, because
    the problem is not convex. The source of a row is its predicted class, also for misclassified
    images.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Model in eval mode. With ``preprocess=`` of a space, images and distances are in the user's
        own pixels.
    images : Tensor or array (B, C, H, W)
        Floating-point images within `bounds`.
    targets : "nearest" or integer Tensor (B,)
        Target class of each row; "nearest": whichever other class has the nearest boundary. A row
        with -1, such as the predicted class of a NaN image, has no target and is UNDECIDED.
    norm : {"l2", "linf"}
        Norm of the distance.
    finder : str or ImageBoundaryFinder
        Name of a plugin ("feature_guided", "ddn", ...) or an instance.
    bounds : (float, float)
        Smallest and largest pixel value.
    max_steps : int, optional
        Limit of gradients per image, default 150.
    labels : integer Tensor (B,), optional
        True classes, used only to warn if accuracy is near chance, a common symptom of missing
        preprocessing.
    batch_size : int
        Number of images per batch.
    seed : int
        Seed for finders that draw random numbers; the global generator is not changed.
    show_progress : bool

    Returns
    -------
    FlipImages
        In the dtype of `images`. A row without an image on the boundary is NaN: MAX_STEPS if none
        was found, INACCURATE if the finder's image failed the check, NOT_FINITE, TARGET_IS_SOURCE.
        An image that is an exact tie already is its own flip image, at distance 0.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, pixels out of bounds, or images that the model does
        not accept, before any work.
    HeadError, HeadMismatchError
        The model has no linear head that can be verified.
    PluginError
        The finder raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> flips = fsb.pixels.flip_images(space, images, max_steps=10)
    >>> flips.source.tolist(), flips.target.tolist(), flips.ok.tolist()
    ([4, 8], [6, 6], [True, True])
    """
    space = space_of(model)
    limits = check_bounds(bounds)
    pixels = check_pixels(images, limits)
    check_integer("batch_size", batch_size)
    check_choice("norm", norm, ("l2", "linf"))
    limit = check_integer("max_steps", MAX_STEPS if max_steps is None else max_steps)
    if labels is not None:
        labels = check_labels(labels, len(pixels))
    plugin = create("boundary_finder", finder, capability="pixels")
    with torch.enable_grad():  # finders need gradients whatever the caller's mode
        pixels = pixels.clone()
        logits = first_logits(space, pixels, batch_size)
        target = check_targets(targets, len(pixels), logits.shape[1], _NEAREST)
        fields = _initial_fields(pixels, logits, target)
        if labels is not None and len(pixels):
            measure_accuracy(fields["source"], labels, logits.shape[1])

        def find(rows: Tensor) -> FlipImages:
            with seeded(seed, pixels.device):
                return find_and_grade_images(
                    plugin,
                    space,
                    pixels[rows],
                    logits[rows],
                    target.to(rows.device)[rows] if isinstance(target, Tensor) else target,
                    bounds=limits,
                    norm=norm,
                    max_steps=limit,
                )

        open_rows = fields["status"] == Status.UNDECIDED
        if isinstance(target, Tensor):
            open_rows &= fields["target"] >= 0
        _solve_rows(fields, open_rows.nonzero()[:, 0], find, batch_size, show_progress)
    return FlipImages(**fields)


def _solve_rows(
    fields: dict[str, Tensor],
    open_rows: Tensor,
    find: Callable[[Tensor], FlipImages],
    batch_size: int,
    show_progress: bool,
) -> None:
    """Write the flip images that `find` returns for `open_rows` into `fields`."""
    with tqdm(total=len(open_rows), unit="image", disable=not show_progress) as bar:
        for rows in open_rows.split(batch_size) if len(open_rows) else ():
            graded = find(rows).to_dict()
            graded["num_forwards"] = graded["num_forwards"] + fields["num_forwards"][rows]
            write_rows(fields, rows, graded)
            bar.update(len(rows))


def _initial_fields(
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
    # where all of three or more logits are equal, there is no boundary to lie on
    distinct = (top[:, 0] > logits.amin(dim=1)) | (logits.shape[1] == 2)
    tie = finite & (top[:, 0] == top[:, 1]) & distinct
    runner_up = torch.where(order[:, 0] == source, order[:, 1], order[:, 0])
    wanted = runner_up if not isinstance(targets, Tensor) else target
    tie &= (
        (target != source)
        & (wanted >= 0)
        & (logits.gather(1, wanted.clamp_min(0)[:, None])[:, 0] == top[:, 0])
    )
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
        # the pass that computed the logits
        "num_forwards": finite.long(),
    }
