"""From given images towards given features: a descent on the logarithm of the distance.

The logarithm keeps the gradient's size while the distance shrinks. From noise, on the demo's
network, 300 steps on the squared distance ended at 5 % of the features' norm, on its logarithm at
1.5 %, and at 1.0 % with smoothing on the way, which is gone before the end. Steps are those of
Adam (Kingma and Ba, ICLR 2015), row by row, in the box, on a cosine schedule; their size, and the
smoothing, shrink with the distance at the start. From a blend of two images, towards features
between theirs, steps of the size that noise needs move pixels far and come less near: 100 steps
ended at 3.0 % after a move of 4.3 (Euclidean length, pixels in [0, 1]), and the warm ones at 2.7 %
after one of 1.5.

The last digits of an inversion: Gauss-Newton steps in a box.

Exact in a step or two where the body is linear near the image, and a few wasted passes where it is
not: there a row leaves as soon as a step gains little.

Images that have given features.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.checks import check_features, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import InverseImages
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_bounds, check_count, check_pixels, spread_rows
from fsboundary.pixels.model_calls import Linearised, features_of, first_logits, norms, per_image
from fsboundary.space import FeatureSpace, space_of

_RATE = 0.15
"""First step of a pixel, in widths of the box, where the features are a full norm away; it goes
with the square of that distance."""
_WARM_RATE = 0.02
"""The same of a warm start, where it goes with the distance itself."""
_MEAN, _SQUARE = 0.9, 0.9
"""How much of the running mean of gradients and of their squares is kept a step."""
_PRIOR = 2.0
"""Weight of the total variation, a pixel and a width of the box, beside the logarithm."""
_SMOOTHING, _UNTIL = 4.0, 0.8
"""The same of the smoothing at first, and the share of the steps after which it is 0."""


def descend(
    view: ModelView,
    wanted: Tensor,
    start: Tensor,
    bounds: tuple[float, float],
    steps: int,
    *,
    smooth: bool,
    warm: bool = False,
) -> Tensor:
    """Return the best images met on the way from `start` to features `wanted`.

    Takes `steps` gradients and one forward pass. A row depends on itself alone.

    Parameters
    ----------
    view : ModelView
    wanted : Tensor (B, d)
        Finite.
    start : Tensor (B, C, H, W)
        Finite and within `bounds`.
    bounds : (float, float)
    steps : int
    smooth : bool
        Add the total variation of the image to what is minimised.
    warm : bool
        Stay near the start, which resembles the answer.
    """
    low, high = bounds
    size = norms(wanted)
    size = torch.where(size > 0, size, 1)
    x = best = start
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    first = least = torch.full_like(size, torch.inf)
    for step in range(steps + 1):
        last = step == steps
        x = x.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            far = _distance(view, wanted, x) / size
            rough = total_variation(x) / (high - low)
            value = (far + torch.finfo(x.dtype).eps).log() + (_PRIOR * rough if smooth else 0)
        if step == 0:
            first = far.detach().clamp_max(1)
        better = value.detach() < least
        least = torch.where(better, value.detach(), least)
        best = torch.where(per_image(better, x) > 0, x.detach(), best)
        if last:
            break
        smoothing = _SMOOTHING * max(0.0, 1 - step / (_UNTIL * steps)) * first
        (g,) = torch.autograd.grad((value + smoothing * rough).sum(), x)
        mean = _MEAN * mean + (1 - _MEAN) * g
        square = _SQUARE * square + (1 - _SQUARE) * g * g
        ahead = mean / (1 - _MEAN ** (step + 1))
        scale = (square / (1 - _SQUARE ** (step + 1))).sqrt() + torch.finfo(x.dtype).tiny
        widths = _WARM_RATE * first if warm else _RATE * first**2
        pace = (high - low) * widths * (0.5 * (1 + math.cos(math.pi * step / steps)))
        x = (x.detach() - per_image(pace, x) * ahead / scale).clamp(low, high)
    return best


def _distance(view: ModelView, wanted: Tensor, x: Tensor) -> Tensor:
    """Return the distance (B,) of the features of `x` from `wanted`, float64."""
    z = view.features(x)
    # ties a body that ignores its images to them, so that it has a gradient, 0
    z = z + 0 * x.flatten(1).sum(dim=1, keepdim=True).to(z)
    return norms(z.to(wanted) - wanted)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each image (B,C,H,W), (B,)."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).sum(dim=1)
    right = (images[..., 1:] - images[..., :-1]).abs().flatten(1).sum(dim=1)
    return (down + right) / max(1, images[0].numel() if len(images) else 1)


_STEPS = 30
_PRODUCTS = 20
"""Conjugate gradient steps for one linear system."""
_LINEAR = 1e-3
"""The body counts as linear where a whole step's outcome is foreseen to this share of the
distance."""
_FAST = 0.5
"""Elsewhere a row goes on only if a step leaves no more than this share of its distance."""


def polish(view: ModelView, wanted: Tensor, start: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return images whose features are at least as near `wanted` as those of `start` are.

    Pixels at a bound that would leave the box stay; the others move as the least squares problem
    of the linearised body says, and are clipped (Bertsekas, SIAM J. Control Optim. 20, 1982).

    Parameters
    ----------
    view : ModelView
    wanted : Tensor (B, d)
    start : Tensor (B, C, H, W)
        Within `bounds`.
    bounds : (float, float)
    """
    images = start.clone()
    rows = torch.arange(len(images), device=images.device)
    for _ in range(_STEPS):
        if len(rows) == 0:
            break
        x, goal = images[rows], wanted[rows]
        near = Linearised(view, x)
        missing = goal.to(near.features) - near.features
        move, steep = _least_squares(near, missing, x, bounds)
        before = norms(missing)
        found, after = x, before
        whole, linear = torch.ones_like(before), torch.zeros_like(before, dtype=torch.bool)
        tries = [(move, whole), (move, whole / 2), (move, _first_bound(x, move, bounds))]
        # a free pixel at its bound may be moved outward by the whole, never by the gradient
        for way, share in [*tries, (steep, whole), (steep, whole / 4)]:
            tried = (x + per_image(share, x) * way).clamp(*bounds)
            left = norms(goal.to(near.features) - features_of(view, tried, len(tried)).to(missing))
            if way is move and share is whole:
                foreseen = norms(missing - near.along(tried - x))
                linear = (left - foreseen).abs() <= _LINEAR * before
            better = left < after
            found = torch.where(per_image(better, x) > 0, tried, found)
            after = torch.where(better, left, after)
        images[rows] = found
        share = torch.where(linear, 1 - torch.finfo(x.dtype).eps, _FAST)
        rows = rows[after < share * before]
    return images


def _first_bound(x: Tensor, move: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the share (B,) of `move` at which the first pixel that is not held meets a bound."""
    room = torch.where(move > 0, bounds[1] - x, x - bounds[0])
    share = torch.where(room > 0, room / move.abs(), torch.inf)
    return share.flatten(1).amin(dim=1).clamp_max(1)


def _least_squares(
    near: Linearised, missing: Tensor, x: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the shortest move of the free pixels after which the linear body misses least.

    And the move along the gradient alone that does best. Conjugate gradients on the normal
    equations (Hestenes and Stiefel 1952), which need no body of full rank.
    """
    downhill = near.back(missing)
    held = ((x <= bounds[0]) & (downhill < 0)) | ((x >= bounds[1]) & (downhill > 0))
    free = (~held).to(x)
    slope = free * downhill
    move, ahead, rest = torch.zeros_like(x), slope, missing
    size = slope.flatten(1).square().sum(dim=1)
    enough = torch.finfo(x.dtype).eps ** 2 * size
    steep = move
    for step in range(_PRODUCTS):
        image = near.along(ahead)
        curve = image.square().sum(dim=1).to(size)
        go = (curve > 0) & (size > enough)
        if not bool(go.any()):
            break
        pace = torch.where(go, size / torch.where(go, curve, 1), 0)
        move = move + per_image(pace, x) * ahead
        if step == 0:
            steep = move
        rest = rest - pace[:, None].to(rest) * image
        slope = free * near.back(rest)
        new = slope.flatten(1).square().sum(dim=1)
        ratio = torch.where(go, new / torch.where(go, size, 1), 0)
        ahead = slope + per_image(ratio, x) * ahead
        size = new
    return move, steep


MAX_STEPS = 800
"""Default gradients an image."""

NEAR = 1e-2
"""A relative residual that counts as having the features."""


def inverse_images(
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
    flips = flip_points(space.head, z)
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
