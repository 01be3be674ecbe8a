"""Morphs: image sequences from one image to another, or into a class, along a path of features.

For each sequence the classes of its frames, where they change, and the largest jump are reported.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.boundaries import class_path, flip_points
from fsboundary.core.checks import (
    check_choice,
    check_integer,
    check_integer_tensor,
    check_labels,
    row_status,
)
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import Morph
from fsboundary.core.rows import TensorOrArray, from_array, scatter_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds, check_pixels, measure_accuracy
from fsboundary.pixels.inversion import find_images
from fsboundary.pixels.model_calls import features_of, first_logits, per_image
from fsboundary.space import FeatureSpace, space_of

_CROSSING_TOLERANCE = 1e-4
"""Largest error of a crossing, in t."""


def _first_change(
    space: FeatureSpace, frames: Tensor, predicted: Tensor, times: Tensor, batch_size: int
) -> Tensor:
    """Return t (B,) at which frames (B,N,C,H,W) first leave the class of the first, or NaN.

    Bisection of the line between the first two neighbouring frames of different class.
    """
    other = predicted != predicted[:, :1]
    rows = other.any(dim=1).nonzero()[:, 0]
    after = other[rows].long().argmax(dim=1)
    first, second = frames[rows, after - 1], frames[rows, after]
    low, high = times[rows, after - 1], times[rows, after]
    begin, width = low, high - low
    ratio = float(width.max()) / _CROSSING_TOLERANCE if len(rows) else 1.0
    for _ in range(math.ceil(math.log2(max(1.0, ratio)))):
        middle = 0.5 * (low + high)
        fraction = per_image((middle - begin) / width, first)
        images = first + fraction * (second - first)
        changed = space.head.predict(features_of(space, images, batch_size)) != predicted[rows, 0]
        low, high = torch.where(changed, low, middle), torch.where(changed, middle, high)
    return scatter_rows(0.5 * (low + high), rows, len(frames))


def _feature_crossing(head: LinearHead, knots: Tensor, times: Tensor) -> Tensor:
    """Return t (B,) at which polylines through `knots` (B,P,d) first leave the class of the first.

    Computed, not sampled; NaN where they never leave it or where rounding hides it. `times` (P,).
    """
    result = torch.full_like(knots[:, 0, 0], torch.nan)
    source = None
    for leg in range(len(times) - 1):
        path = class_path(head, knots[:, leg], knots[:, leg + 1])
        source = path.classes[:, 0] if source is None else source
        crossing = torch.full_like(result, torch.nan)
        if path.crossings.shape[1]:
            crossing = path.crossings[:, 0]
        crossing = torch.where(path.classes[:, 0] == source, crossing, 0)
        t = times[leg] + (times[leg + 1] - times[leg]) * crossing
        valid = (path.status == Status.CONVERGED) | (path.status == Status.UNDECIDED)
        result = torch.where(valid & torch.isnan(result), t, result)
    return result


def _largest_jump(frames: Tensor) -> Tensor:
    """Return the largest distance between neighbours of frames (B,N,...), (B,), float64."""
    flat = frames.flatten(2).to(torch.float64)
    return (flat[:, 1:] - flat[:, :-1]).square().sum(dim=2).sqrt().amax(dim=1)


MAX_STEPS = 400
"""Default number of gradients per frame, fewer than from noise because the plain blend is near."""

NEAR_PATH = 0.03
"""Largest distance of a frame's features from the path, relative to their norm on the path.

It is larger than for an inverse image, because features between those of two images need not be
those of any image."""


@in_standard_modes
@torch.enable_grad()
def morph(
    space: nn.Module | FeatureSpace,
    start: Float[TensorOrArray, "B C H W"],
    end: TensorOrArray,
    *,
    steps: int = 16,
    via: Literal["straight", "flip_point"] = "straight",
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    labels: Int[TensorOrArray, " B"] | None = None,
    batch_size: int = 256,
) -> Morph:
    """Return a path of images from `start` to `end` whose features follow a path.

    Each frame starts from the plain blend of start and end, or from the start if the end is a
    class, and is moved towards the feature path by small steps. The first frame is the start and,
    if the end is an image, the last frame is that image.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    start : Tensor or array (B, C, H, W)
    end : Tensor or array (B, C, H, W), or integers (B,)
        Images, or classes. Towards a class, the features end at the reflection of the start in the
        flip point of that class, clipped to the domain: as far behind the boundary as the start is
        in front of it.
    steps : int
        Number of frames, at least 2.
    via : "straight" or "flip_point"
        The feature path: one line, or two that meet, at t = 1/2, in the flip point of the start for
        the class of the end. One of the frames is at that point.
    bounds : (float, float)
        Smallest and largest pixel value.
    max_steps : int, optional
        Number of gradients per frame, default 400.
    labels : Tensor (B,), optional
        True classes of the starts, used only to warn if accuracy is near chance
        (:func:`check_accuracy`).
    batch_size : int
        Number of images per batch.

    Returns
    -------
    Morph
        NaN rows: NOT_FINITE; OUTSIDE_DOMAIN; if a flip point is needed, INFEASIBLE if there is
        none and TARGET_IS_SOURCE if start and end are of the same class.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, images outside the bounds, class numbers, before any work.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> film = fsb.pixels.morph(space, images[:1], images[1:], steps=4, max_steps=5)
    >>> film.images.shape, film.predicted[0, 0].item(), film.predicted[0, -1].item()
    (torch.Size([1, 4, 1, 28, 28]), 4, 8)
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    first = check_pixels(start, limits, "start")
    check_integer("steps", steps, 2)
    check_integer("batch_size", batch_size)
    limit = check_integer("max_steps", MAX_STEPS if max_steps is None else max_steps)
    check_choice("via", via, ("straight", "flip_point"))
    last = target = None
    end = from_array(end)
    if isinstance(end, Tensor) and end.is_floating_point():
        last = check_pixels(end, limits, "end", like=first).to(first)
    else:
        fix, also = "pass torch.full((B,), k) for one class", f"images {tuple(first.shape)}"
        target = check_integer_tensor("end", end, (len(first),), fix=fix, also=also)
        target = target.to(first.device)
    if labels is not None:
        labels = check_labels(labels, len(first))
    first_logits(model, first[:1], 1)  # finds the head, and checks that the images fit the model
    knots, status = _knots(model, first, last, target, via, batch_size)
    if labels is not None and len(first):
        known = torch.isfinite(knots[:, 0]).all(dim=1)
        predicted = torch.where(known, model.head.predict(knots[:, 0]), -1)
        measure_accuracy(predicted, labels, model.head.num_classes)
    times = _frame_times(steps, middle=knots.shape[1] == 3).to(first.device)
    knot_times = torch.linspace(0, 1, knots.shape[1], dtype=torch.float64, device=first.device)
    wanted = _on_polyline(knots, knot_times, times)
    usable = status == Status.CONVERGED
    frames = _frames(model, first, last, wanted, times, limits, limit, status, batch_size)
    blend = torch.lerp(frames[:, :1], frames[:, -1:], times.to(frames).reshape(-1, 1, 1, 1))
    row_times = times.expand(len(first), -1).clone()
    z, measured = _measure_frames(model, frames, row_times, usable, batch_size)
    _, blended = _measure_frames(model, blend, row_times, usable, batch_size)
    size = torch.linalg.vector_norm(wanted, dim=2)
    off_path = torch.linalg.vector_norm(z - wanted, dim=2) / torch.where(size > 0, size, 1)
    code = torch.where(off_path.amax(dim=1) <= NEAR_PATH, 0, int(Status.MAX_STEPS))
    fields = measured | {f"blend_{name}": value for name, value in blended.items()}
    return Morph(
        times=row_times,
        images=frames,
        blend=blend,
        features=z,
        off_path=off_path,
        feature_crossing=_feature_crossing(model.head, knots, knot_times),
        status=torch.where(usable, code, status),
        **fields,
    )


def _measure_frames(
    space: FeatureSpace, frames: Tensor, times: Tensor, usable: Tensor, batch_size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the features (B,N,d) of frames (B,N,C,H,W), and their logits, classes and jumps."""
    z = _features(space, frames, usable, batch_size)
    logits = space.head.logits(z)
    predicted = torch.where(usable[:, None], logits.argmax(dim=-1), -1)
    return z, {
        "logits": logits,
        "predicted": predicted,
        "crossing": _first_change(space, frames, predicted, times, batch_size),
        "largest_jump": _largest_jump(frames),
    }


def _knots(
    space: FeatureSpace,
    first: Tensor,
    last: Tensor | None,
    target: Tensor | None,
    via: str,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the corners (B,P,d) of the feature path, P = 2 or 3, and the status (B,)."""
    z = space.extract(first, batch_size=batch_size).features.double()
    status = row_status(space.head, z)
    final = None
    if last is not None:
        final = space.extract(last, batch_size=batch_size).features.double()
        final_status = row_status(space.head, final)
        status = torch.where(status == Status.CONVERGED, final_status, status)
        target = torch.where(final_status == Status.CONVERGED, space.head.predict(final), 0)
        if via == "straight":
            return torch.stack([z, final], dim=1), status
    assert target is not None  # either `last` or `target` is given
    flips = flip_points(space.head, z, target)
    status = torch.where(status == Status.CONVERGED, flips.status[:, 0], status)
    flip = flips.points[:, 0]
    if final is None:
        final = space.domain.clip(2 * flip - z)
    knots = (z, final) if via == "straight" else (z, flip, final)
    return torch.stack(knots, dim=1), status


def _frame_times(steps: int, *, middle: bool) -> Tensor:
    """Return t (N,) of the frames; 1/2 is among them if `middle` and N > 2."""
    if not middle:
        return torch.linspace(0, 1, steps, dtype=torch.float64)
    before = (steps + 1) // 2
    first = torch.linspace(0, 0.5, before, dtype=torch.float64)
    return torch.cat([first, torch.linspace(0.5, 1, steps - before + 1, dtype=torch.float64)[1:]])


def _on_polyline(knots: Tensor, knot_times: Tensor, times: Tensor) -> Tensor:
    """Return the points (B,N,d) of the polyline through `knots` (B,P,d) at `times` (N,)."""
    leg = (torch.searchsorted(knot_times, times) - 1).clamp(0, len(knot_times) - 2)
    fraction = (times - knot_times[leg]) / (knot_times[leg + 1] - knot_times[leg])
    return torch.lerp(knots[:, leg], knots[:, leg + 1], fraction[:, None])


def _frames(
    space: FeatureSpace,
    first: Tensor,
    last: Tensor | None,
    wanted: Tensor,
    times: Tensor,
    bounds: tuple[float, float],
    max_steps: int,
    status: Tensor,
    batch_size: int,
) -> Tensor:
    """Return the frames (B,N,C,H,W), NaN in rows that failed.

    Rows whose start is not finite fail too; their `status` is changed in place.
    """
    finite = torch.isfinite(first.flatten(1)).all(dim=1)
    status[~finite & (status == Status.CONVERGED)] = int(Status.NOT_FINITE)
    searched = times[1:] if last is None else times[1:-1]
    fractions = searched.to(first).reshape(-1, 1, 1, 1)
    begin = torch.lerp(first[:, None], (first if last is None else last)[:, None], fractions)
    # all frames in one call: batches cost less than single frames
    images = find_images(
        space,
        wanted[:, 1 : 1 + len(searched)].flatten(0, 1),
        begin.clamp(*bounds).flatten(0, 1),
        bounds,
        max_steps,
        None,
        status.repeat_interleave(len(searched)),
        batch_size,
        warm=True,
    )
    ends = [] if last is None else [last[:, None]]
    frames = torch.cat([first[:, None], images.reshape(begin.shape), *ends], dim=1)
    failed = (status != Status.CONVERGED).reshape(-1, 1, 1, 1, 1)
    return torch.where(failed, torch.nan, frames)


def _features(space: FeatureSpace, frames: Tensor, usable: Tensor, batch_size: int) -> Tensor:
    """Return the features (B,N,d) of frames (B,N,C,H,W), float64; NaN in rows that failed."""
    z = features_of(space, frames[usable].flatten(0, 1), batch_size)
    z = z.reshape(-1, frames.shape[1], space.head.num_features)
    return scatter_rows(z, usable, len(frames))
