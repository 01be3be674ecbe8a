"""What the model says of frames in a row: classes, where they change, jumps.

From one image to another, or into a class, along a path of features.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.boundaries import class_path, flip_points
from fsboundary.core.checks import row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import Morph
from fsboundary.core.status import Status
from fsboundary.pixels.checks import (
    check_bounds,
    check_count,
    check_labels,
    check_pixels,
    told_accuracy,
)
from fsboundary.pixels.inversion import find_images
from fsboundary.pixels.model_calls import features_of, first_logits, per_image
from fsboundary.space import FeatureSpace, space_of

WITHIN = 1e-4
"""Crossings are located to this in t."""


def first_change(
    space: FeatureSpace, frames: Tensor, predicted: Tensor, times: Tensor, batch_size: int
) -> Tensor:
    """Return t (B,) at which frames (B,N,C,H,W) first leave the class of the first, or NaN.

    Bisected on the straight line between the first two neighbours of different class.
    """
    other = predicted != predicted[:, :1]
    out = torch.full_like(times[:, 0], torch.nan)
    rows = other.any(dim=1).nonzero()[:, 0]
    after = other[rows].long().argmax(dim=1)
    first, second = frames[rows, after - 1], frames[rows, after]
    low, high = times[rows, after - 1], times[rows, after]
    begin, width = low, high - low
    halvings = math.ceil(math.log2(max(1.0, float(width.max()) / WITHIN))) if len(rows) else 0
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        share = per_image((middle - begin) / width, first)
        images = first + share * (second - first)
        left = space.head.predict(features_of(space, images, batch_size)) != predicted[rows, 0]
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
    out[rows] = 0.5 * (low + high)
    return out


def feature_change(head: LinearHead, knots: Tensor, times: Tensor) -> Tensor:
    """Return t (B,) at which polylines through `knots` (B,P,d) first leave the class of the first.

    Computed, not sampled; NaN where they never do or where rounding hides it. `times` (P,).
    """
    out = torch.full_like(knots[:, 0, 0], torch.nan)
    source = None
    for leg in range(len(times) - 1):
        path = class_path(head, knots[:, leg], knots[:, leg + 1])
        source = path.classes[:, 0] if source is None else source
        inside = torch.full_like(out, torch.nan)
        if path.crossings.shape[1]:
            inside = path.crossings[:, 0]
        inside = torch.where(path.classes[:, 0] == source, inside, 0)
        ok = (path.status == Status.CONVERGED) | (path.status == Status.UNDECIDED)
        out = torch.where(
            ok & torch.isnan(out), times[leg] + (times[leg + 1] - times[leg]) * inside, out
        )
    return out


def largest_jump(frames: Tensor) -> Tensor:
    """Return the largest distance between neighbours of frames (B,N,...), (B,), float64."""
    flat = frames.flatten(2).to(torch.float64)
    return (flat[:, 1:] - flat[:, :-1]).square().sum(dim=2).sqrt().amax(dim=1)


MAX_STEPS = 400
"""Default gradients a frame, fewer than from noise: the plain blend is near."""

NEAR_PATH = 0.03
"""A frame is on the path within this share of the norm of the path's features: more than of an
inverse image, for features between those of two images need not be those of any."""


def morph(
    space: nn.Module | FeatureSpace,
    start: Float[Tensor, "B C H W"],
    end: Tensor,
    *,
    steps: int = 16,
    via: Literal["straight", "flip_point"] = "straight",
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    labels: Int[Tensor, " B"] | None = None,
    batch_size: int = 256,
) -> Morph:
    """Return a path of images from `start` to `end` whose features follow a path.

    Each frame starts from the plain blend of start and end, or from the start where the end is a
    class, and is led to the feature path from there by small steps. The first frame is the start
    and, where the end is an image, the last is that image.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    start : Tensor (B, C, H, W)
    end : Tensor (B, C, H, W), or integers (B,)
        Images, or classes. Towards a class the features end where the start is mirrored in the
        flip point of that class, clipped to the domain: as far behind the boundary as the start
        is before it.
    steps : int
        Frames, at least 2.
    via : "straight" or "flip_point"
        The feature path: a straight line, or two that meet, at t = 1/2, in the flip point of the
        start for the class of the end. The frame there is one of the frames.
    bounds : (float, float)
        Least and largest pixel value.
    max_steps : int, optional
        Gradients a frame, default 400.
    labels : Tensor (B,), optional
        True classes of the starts; a UserWarning tells where the model's accuracy is near chance
        (:func:`check_accuracy`).
    batch_size : int
        Images at once.

    Returns
    -------
    Morph
        NaN rows: NOT_FINITE; OUTSIDE_DOMAIN; where a flip point is needed, INFEASIBLE if there is
        none and TARGET_IS_SOURCE if start and end are of the same class.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, images outside the bounds, class numbers, before any work.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    first = check_pixels(start, limits, "start")
    check_count("steps", steps, 2)
    check_count("batch_size", batch_size)
    limit = check_count("max_steps", MAX_STEPS if max_steps is None else max_steps)
    if via not in ("straight", "flip_point"):
        raise ArgumentError("via", repr(via), '"straight" or "flip_point"', "leave it out")
    last, target = _check_end(end, first, limits)
    if labels is not None:
        check_labels(labels, len(first))
    first_logits(model, first[:1], 1)  # finds the head, and out whether the images fit
    knots, status = _knots(model, first, last, target, via, batch_size)
    if labels is not None and len(first):
        known = torch.isfinite(knots[:, 0]).all(dim=1)
        predicted = torch.where(known, model.head.predict(knots[:, 0]), -1)
        told_accuracy(predicted, labels, model.head.num_classes)
    middle = knots.shape[1] == 3
    times = _times(steps, middle).to(first.device)
    corners = torch.linspace(0, 1, knots.shape[1], dtype=torch.float64, device=first.device)
    wanted = _on_polyline(knots, corners, times)
    failed = status != Status.CONVERGED
    frames = _frames(model, first, last, wanted, times, limits, limit, status, batch_size)
    shares = times.to(frames).reshape(-1, 1, 1, 1)
    blend = torch.lerp(frames[:, :1], frames[:, -1:], shares)
    fields: dict[str, Any] = {
        "times": times.expand(len(first), -1).clone(),
        "images": frames,
        "blend": blend,
        "feature_crossing": feature_change(model.head, knots, corners),
    }
    for name, row in (("", frames), ("blend_", blend)):
        z = _features(model, row, ~failed, batch_size)
        logits = model.head.logits(z)
        predicted = torch.where(failed[:, None], -1, logits.argmax(dim=-1))
        crossing = first_change(model, row, predicted, fields["times"], batch_size)
        fields |= {name + "logits": logits, name + "predicted": predicted}
        fields |= {name + "crossing": crossing, name + "largest_jump": largest_jump(row)}
        if not name:
            size = torch.linalg.vector_norm(wanted, dim=2)
            missed = torch.linalg.vector_norm(z - wanted, dim=2)
            fields |= {"features": z, "off_path": missed / torch.where(size > 0, size, 1)}
    code = torch.where(fields["off_path"].amax(dim=1) <= NEAR_PATH, 0, int(Status.MAX_STEPS))
    return Morph(status=torch.where(failed, status, code), **fields)


def _check_end(
    end: object, start: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the images to end at or the classes to end in, or raise ArgumentError."""
    wanted = f"images {tuple(start.shape)} or classes ({len(start)},)"
    if isinstance(end, Tensor) and end.is_floating_point():
        if end.shape != start.shape:
            fix = "pass one end for each start"
            raise ArgumentError("end", f"shape {tuple(end.shape)}", wanted, fix)
        return check_pixels(end, bounds, "end").to(start), None
    if not isinstance(end, Tensor) or end.dtype == torch.bool or end.shape != start.shape[:1]:
        got = f"{end.dtype} {tuple(end.shape)}" if isinstance(end, Tensor) else repr(end)
        raise ArgumentError("end", got, wanted, "pass torch.full((B,), k) for one class")
    return None, end.long().to(start.device)


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
    behind = None
    if last is not None:
        behind = space.extract(last, batch_size=batch_size).features.double()
        other = row_status(space.head, behind)
        status = torch.where(status == Status.CONVERGED, other, status)
        target = torch.where(other == Status.CONVERGED, space.head.predict(behind), 0)
        if via == "straight":
            return torch.stack([z, behind], dim=1), status
    assert target is not None  # one of both is given
    flips = flip_points(space.head, z, target)
    status = torch.where(status == Status.CONVERGED, flips.status[:, 0], status)
    between = flips.points[:, 0]
    if behind is None:
        behind = space.domain.clip(2 * between - z)
    knots = (z, behind) if via == "straight" else (z, between, behind)
    return torch.stack(knots, dim=1), status


def _times(steps: int, middle: bool) -> Tensor:
    """Return t (N,) of the frames; 1/2 is among them if `middle` and N > 2."""
    if not middle:
        return torch.linspace(0, 1, steps, dtype=torch.float64)
    before = (steps + 1) // 2
    first = torch.linspace(0, 0.5, before, dtype=torch.float64)
    return torch.cat([first, torch.linspace(0.5, 1, steps - before + 1, dtype=torch.float64)[1:]])


def _on_polyline(knots: Tensor, corners: Tensor, times: Tensor) -> Tensor:
    """Return the points (B,N,d) of the polyline through `knots` (B,P,d) at `times` (N,)."""
    leg = (torch.searchsorted(corners, times) - 1).clamp(0, len(corners) - 2)
    share = (times - corners[leg]) / (corners[leg + 1] - corners[leg])
    return torch.lerp(knots[:, leg], knots[:, leg + 1], share[:, None])


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
    """Return the frames (B,N,C,H,W); NaN in rows that fail, which is written into `status`."""
    finite = torch.isfinite(first.flatten(1)).all(dim=1)
    status[~finite & (status == Status.CONVERGED)] = int(Status.NOT_FINITE)
    made = times[1:] if last is None else times[1:-1]
    shares = made.to(first).reshape(-1, 1, 1, 1)
    begin = torch.lerp(first[:, None], (first if last is None else last)[:, None], shares)
    # all at once: a batch costs less than as many frames one by one
    found = find_images(
        space,
        wanted[:, 1 : 1 + len(made)].flatten(0, 1),
        begin.clamp(*bounds).flatten(0, 1),
        bounds,
        max_steps,
        None,
        status.repeat_interleave(len(made)),
        batch_size,
        warm=True,
    )
    ends = [] if last is None else [last[:, None]]
    frames = torch.cat([first[:, None], found.reshape(begin.shape), *ends], dim=1)
    failed = (status != Status.CONVERGED).reshape(-1, 1, 1, 1, 1)
    return torch.where(failed, torch.nan, frames)


def _features(space: FeatureSpace, frames: Tensor, fine: Tensor, batch_size: int) -> Tensor:
    """Return the features (B,N,d) of frames (B,N,C,H,W), float64; NaN in rows that failed."""
    width = space.head.num_features
    out = torch.full((*frames.shape[:2], width), torch.nan, dtype=torch.float64)
    out = out.to(frames.device)
    found = features_of(space, frames[fine].flatten(0, 1), batch_size)
    out[fine] = found.reshape(-1, frames.shape[1], width)
    return out
