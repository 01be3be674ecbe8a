"""Images that have given features."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.boundaries import find_flip_points
from fsboundary.core.checks import check_features, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import InverseImages
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_bounds, check_count, check_pixels, spread_rows
from fsboundary.pixels.inversion_steps import descend, polish
from fsboundary.pixels.model_calls import features_of, first_logits, norms, per_image
from fsboundary.space import FeatureSpace, space_of

MAX_STEPS = 800
"""Default gradients an image."""

NEAR = 1e-2
"""A relative residual that counts as having the features."""


def invert(
    space: nn.Module | FeatureSpace,
    features: Float[Tensor, "B d"],
    start: Tensor | tuple[int, int, int, int],
    *,
    bounds: tuple[float, float] = (0, 1),
    prior: Literal["tv"] | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> InverseImages:
    """Return images within `bounds` whose features are as near `features` as could be found.

    The problem is not convex and has many answers or none: the residual is measured on the image
    that is returned, and several starts show how different the answers are.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    features : Tensor (B, d)
        For example of images, ``flips.points[:, 0]``, ``projection.points`` or a class mean.
    start : Tensor (B, C, H, W) or (S, B, C, H, W), or tuple (S, C, H, W)
        One start for each row, S starts for each row, or the shape of S images of uniform noise
        within the bounds, the same for every row. The result has S along its second dimension,
        1 for a single start.
    bounds : (float, float)
        Least and largest pixel value.
    prior : "tv" or None
        "tv" prefers images of small total variation, at the price of a larger residual.
    max_steps : int, optional
        Gradients for each image and start, default 800. A few more are spent on the last digits
        where the body is nearly linear.
    seed : int
        For the noise.
    batch_size : int
        Images at once.

    Returns
    -------
    InverseImages
        A row whose features lie outside the domain, or whose features or start are not finite, is
        NaN. So is one whose start no step improved.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, bounds that are not, or starts outside them, before any work.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    steps = _check_options(prior, max_steps, batch_size)
    starts = _check_start(model, features, start, limits, seed)
    rows, count = starts.shape[:2]
    flat = starts.flatten(0, 1)
    first_logits(model, flat[:1], 1)  # finds the head, and out whether the images fit
    wanted = check_features(model.head.num_features, features).to(flat.device)
    status = row_status(model.head, wanted).repeat_interleave(count)
    wanted = wanted.repeat_interleave(count, dim=0)
    images = find_images(model, wanted, flat, limits, steps, prior, status, batch_size)
    return _measured(model, wanted, images, flat, status, batch_size, (rows, count))


def find_images(
    space: FeatureSpace,
    wanted: Tensor,
    start: Tensor,
    bounds: tuple[float, float],
    steps: int,
    prior: str | None,
    status: Tensor,
    batch_size: int,
    *,
    warm: bool = False,
) -> Tensor:
    """Return images (B,C,H,W) that are as near features `wanted` as could be found.

    Rows whose `status` is not CONVERGED, or whose start is not finite, which is written into
    `status`, are NaN. With `warm` they stay near the start.
    """
    finite = torch.isfinite(start.flatten(1)).all(dim=1)
    status[~finite & (status == Status.CONVERGED)] = int(Status.NOT_FINITE)
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
    parts = [start[:0]]
    for index in fine.split(batch_size):
        goal = wanted[index]
        begin, smooth = start[index], prior == "tv"
        found = descend(space, goal, begin, bounds, steps, smooth=smooth, warm=warm)
        parts.append(found if prior == "tv" else polish(space, goal, found, bounds))
    return spread_rows(torch.cat(parts), fine, len(start))


def _measured(
    space: FeatureSpace,
    wanted: Tensor,
    images: Tensor,
    start: Tensor,
    status: Tensor,
    batch_size: int,
    shape: tuple[int, int],
) -> InverseImages:
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
    z = torch.full_like(wanted, torch.nan)
    z[fine] = features_of(space, images[fine], batch_size)
    residual = norms(z - wanted)
    size = norms(wanted)
    relative = residual / torch.where(size > 0, size, 1)
    code = torch.where(relative <= NEAR, int(Status.CONVERGED), int(Status.MAX_STEPS))
    idle = (images == start).flatten(1).all(dim=1)
    code[(code == Status.MAX_STEPS) & idle] = int(Status.INACCURATE)
    code[~torch.isfinite(residual)] = int(Status.NOT_FINITE)
    status = torch.where(status == Status.CONVERGED, code, status)
    failed = (status != Status.CONVERGED) & (status != Status.MAX_STEPS)
    blank = torch.where(failed, torch.nan, 0.0)
    images = images + per_image(blank, images)
    z, residual, relative = z + blank[:, None], residual + blank, relative + blank
    flips = find_flip_points(space.head, z)
    predicted = torch.where(failed, -1, flips.source)
    together = images.reshape(*shape, *images.shape[1:])
    return InverseImages(
        images=together,
        features=z.reshape(*shape, z.shape[1]),
        residual=residual.reshape(shape),
        relative_residual=relative.reshape(shape),
        predicted=predicted.reshape(shape),
        boundary_distance=flips.distance[:, 0].reshape(shape),
        spread=_spread(together),
        status=status.reshape(shape),
    )


def _spread(images: Tensor) -> Tensor:
    """Return the mean distance between the usable images (B,S,...) of each row, (B,)."""
    flat = images.flatten(2).to(torch.float64)
    apart = (flat[:, :, None] - flat[:, None]).square().sum(dim=3).sqrt()
    first, second = torch.triu_indices(apart.shape[1], apart.shape[1], 1, device=apart.device)
    return apart[:, first, second].nanmean(dim=1)


def _check_options(prior: object, max_steps: object, batch_size: object) -> int:
    """Return the number of steps, or raise ArgumentError."""
    if prior not in (None, "tv"):
        raise ArgumentError("prior", repr(prior), '"tv" or None', "leave it out")
    check_count("batch_size", batch_size)
    return check_count("max_steps", MAX_STEPS if max_steps is None else max_steps)


def _check_start(
    space: FeatureSpace, features: object, start: object, bounds: tuple[float, float], seed: int
) -> Tensor:
    """Return the starts (B,S,C,H,W), or raise ArgumentError."""
    rows = len(features) if isinstance(features, Tensor) and features.ndim else 0
    wanted = f"a tensor ({rows}, C, H, W) or (S, {rows}, C, H, W), or a tuple (S, C, H, W)"
    fix = "pass one start for each row of features, or the shape of noise images"
    if isinstance(start, Tensor):
        stacked = start[None] if start.ndim == 4 else start
        if stacked.ndim != 5 or stacked.shape[0] < 1 or stacked.shape[1] != rows:
            raise ArgumentError("start", f"shape {tuple(start.shape)}", wanted, fix)
        flat = check_pixels(stacked.flatten(0, 1), bounds, "start")
        return flat.reshape(stacked.shape).movedim(0, 1)
    whole = isinstance(start, tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in start
    )
    if not isinstance(start, tuple) or not whole or len(start) != 4:
        raise ArgumentError("start", repr(start), wanted, fix)
    dtype = next((p.dtype for p in space.model.parameters()), torch.get_default_dtype())
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(start, generator=generator, dtype=dtype)
    noise = bounds[0] + (bounds[1] - bounds[0]) * noise
    return noise.expand(rows, *start)
