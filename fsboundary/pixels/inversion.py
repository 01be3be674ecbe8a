"""Inverse images: images that have given features.

A first-order descent from a start is followed by Gauss-Newton steps for the last digits.

The descent minimises the logarithm of the distance, which keeps the gradient's size while the
distance shrinks. From noise, on the demo's network, 300 steps on the squared distance ended at 5 %
of the features' norm, on its logarithm at 1.5 %, and at 1.0 % with smoothing, which decays to 0
before the end. Steps are those of Adam (Kingma and Ba, ICLR 2015), per row, in the box, on a cosine
schedule; their size, and the smoothing, shrink with the distance at the start. From a blend of two
images, towards features between theirs, steps of the size that noise needs move pixels far and end
less near: 100 steps ended at 3.0 % after a move of 4.3 (Euclidean length, pixels in [0, 1]), and
warm ones at 2.7 % after one of 1.5.

The Gauss-Newton steps stay in the box. They are exact in one or two steps if the body is linear
near the image, and cost a few passes if it is not: a row stops as soon as a step gains little.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.checks import (
    batch_features,
    check_choice,
    check_features,
    check_integer,
    check_shape,
    row_status,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FeatureBatch, InverseImages
from fsboundary.core.rows import TensorOrArray, scatter_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.pixels.model_calls import (
    FeatureJacobian,
    features_of,
    first_logits,
    norms,
    per_image,
)
from fsboundary.space import FeatureSpace, space_of

_RATE = 0.15
"""First step of a pixel, as a fraction of the width of the box, if the features are a full norm
away; it is proportional to the square of that distance."""

_WARM_RATE = 0.02
"""First step of a pixel from a warm start; it is proportional to the distance itself."""

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.9
"""Decay per step of the running means of gradients and of their squares."""

_PRIOR = 2.0
"""Weight of the total variation (mean per pixel, in widths of the box), added to the logarithm."""

_SMOOTHING, _SMOOTHING_END = 4.0, 0.8
"""Initial weight of the total variation as smoothing, and the fraction of the steps after which it
is 0."""


def _descend(
    view: ModelView,
    wanted: Tensor,
    start: Tensor,
    bounds: tuple[float, float],
    steps: int,
    *,
    smooth: bool,
    warm: bool = False,
) -> Tensor:
    """Return the best images on the path from `start` towards features `wanted`.

    Uses `steps` gradients and one forward pass. Rows do not depend on each other.

    Parameters
    ----------
    view : ModelView
    wanted : Tensor (B, d)
        Finite features.
    start : Tensor or array (B, C, H, W)
        Finite images within `bounds`.
    bounds : (float, float)
    steps : int
    smooth : bool
        Whether the total variation of the image is added to the objective.
    warm : bool
        Whether to stay near the start, because it resembles the solution.
    """
    size = norms(wanted)
    size = torch.where(size > 0, size, 1)
    x = best = start
    adam = _Adam(start)
    first = lowest = torch.full_like(size, torch.inf)
    for step in range(steps + 1):
        last = step == steps
        x = x.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            relative = _distance(view, wanted, x) / size
            variation = total_variation(x) / (bounds[1] - bounds[0])
            value = (relative + torch.finfo(x.dtype).eps).log()
            value = value + (_PRIOR * variation if smooth else 0)
        if step == 0:
            first = relative.detach().clamp_max(1)
        better = value.detach() < lowest
        lowest = torch.where(better, value.detach(), lowest)
        best = torch.where(per_image(better, x) > 0, x.detach(), best)
        if last:
            break
        smoothing = _SMOOTHING * max(0.0, 1 - step / (_SMOOTHING_END * steps)) * first
        (gradient,) = torch.autograd.grad((value + smoothing * variation).sum(), x)
        length = (bounds[1] - bounds[0]) * (_WARM_RATE * first if warm else _RATE * first**2)
        length = length * (0.5 * (1 + math.cos(math.pi * step / steps)))
        x = adam.update(x.detach(), gradient, length).clamp(*bounds)
    return best


@final
class _Adam:
    """Adam's running means of gradients and of their squares, per pixel."""

    def __init__(self, images: Tensor) -> None:
        self._mean, self._square = torch.zeros_like(images), torch.zeros_like(images)
        self._count = 0

    def update(self, x: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
        """Return `x` after a step of `length` (B,) against the gradient."""
        self._count += 1
        self._mean = _MEAN_DECAY * self._mean + (1 - _MEAN_DECAY) * gradient
        self._square = _SQUARE_DECAY * self._square + (1 - _SQUARE_DECAY) * gradient * gradient
        mean = self._mean / (1 - _MEAN_DECAY**self._count)
        scale = (self._square / (1 - _SQUARE_DECAY**self._count)).sqrt()
        return x - per_image(length, x) * mean / (scale + torch.finfo(x.dtype).tiny)


def _distance(view: ModelView, wanted: Tensor, x: Tensor) -> Tensor:
    """Return the distance (B,) of the features of `x` from `wanted`, float64."""
    z = view.features(x)
    # connects a body that ignores its images to them, so that it has a gradient, 0
    z = z + 0 * x.flatten(1).sum(dim=1, keepdim=True).to(z)
    return norms(z.to(wanted) - wanted)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each image (B,C,H,W), (B,)."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).sum(dim=1)
    right = (images[..., 1:] - images[..., :-1]).abs().flatten(1).sum(dim=1)
    return (down + right) / max(1, images[0].numel() if len(images) else 1)


_NEWTON_STEPS = 30
"""Maximum number of Gauss-Newton steps."""

_CG_STEPS = 20
"""Maximum number of conjugate gradient steps for one linear system."""

_LINEAR = 1e-3
"""Fraction of the distance to which the outcome of a full step must be predicted, for the body to
count as linear."""

_FAST = 0.5
"""Fraction of its distance that a step may leave at most, for a row to continue if the body is not
linear."""


def _polish(view: ModelView, wanted: Tensor, start: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return images whose features are at least as near `wanted` as those of `start` are.

    Pixels at a bound that would leave the box stay; the others take the step that solves the least
    squares problem of the linearised body, and are clipped (Bertsekas, SIAM J. Control Optim. 20,
    1982).

    Parameters
    ----------
    view : ModelView
    wanted : Tensor (B, d)
    start : Tensor or array (B, C, H, W)
        Images within `bounds`.
    bounds : (float, float)
    """
    images = start.clone()
    rows = torch.arange(len(images), device=images.device)
    for _ in range(_NEWTON_STEPS):
        if len(rows) == 0:
            break
        images[rows], improving = _newton_step(view, wanted[rows], images[rows], bounds)
        rows = rows[improving]
    return images


def _newton_step(
    view: ModelView, wanted: Tensor, x: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the best of a few steps from `x` (B,...), and which rows should go on (B,)."""
    jacobian = FeatureJacobian(view, x)
    target = wanted.to(jacobian.features)
    residual = target - jacobian.features
    move, steepest = _least_squares(jacobian, residual, x, bounds)
    before = norms(residual)
    best, after = x, before
    full, linear = torch.ones_like(before), torch.zeros_like(before, dtype=torch.bool)
    tries = [(move, full), (move, full / 2), (move, _first_bound(x, move, bounds))]
    # the full move may push a free pixel at its bound outwards, the gradient never does
    for direction, fraction in [*tries, (steepest, full), (steepest, full / 4)]:
        candidate = (x + per_image(fraction, x) * direction).clamp(*bounds)
        distance = norms(target - features_of(view, candidate, len(candidate)).to(residual))
        if direction is move and fraction is full:
            predicted = norms(residual - jacobian.jvp(candidate - x))
            linear = (distance - predicted).abs() <= _LINEAR * before
        better = distance < after
        best = torch.where(per_image(better, x) > 0, candidate, best)
        after = torch.where(better, distance, after)
    required = torch.where(linear, (1 - torch.finfo(x.dtype).eps) * full, _FAST)
    return best, after < required * before


def _first_bound(x: Tensor, move: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the fraction (B,) of `move` at which the first free pixel meets a bound."""
    room = torch.where(move > 0, bounds[1] - x, x - bounds[0])
    fraction = torch.where(room > 0, room / move.abs(), torch.inf)
    return fraction.flatten(1).amin(dim=1).clamp_max(1)


def _least_squares(
    jacobian: FeatureJacobian, residual: Tensor, x: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the least-squares move of the free pixels for the linearised body.

    It is the shortest move with the smallest residual. Returned second is the best move along the
    gradient only. Conjugate gradients on the normal equations (Hestenes and Stiefel 1952), which
    do not need a Jacobian of full rank.
    """
    downhill = jacobian.vjp(residual)
    fixed = ((x <= bounds[0]) & (downhill < 0)) | ((x >= bounds[1]) & (downhill > 0))
    free = (~fixed).to(x)
    gradient = free * downhill
    move, direction, rest = torch.zeros_like(x), gradient, residual
    size = gradient.flatten(1).square().sum(dim=1)
    negligible = torch.finfo(x.dtype).eps ** 2 * size
    steepest = move
    for step in range(_CG_STEPS):
        image = jacobian.jvp(direction)
        curvature = image.square().sum(dim=1).to(size)
        active = (curvature > 0) & (size > negligible)
        if not bool(active.any()):
            break
        length = torch.where(active, size / torch.where(active, curvature, 1), 0)
        move = move + per_image(length, x) * direction
        if step == 0:
            steepest = move
        rest = rest - length[:, None].to(rest) * image
        gradient = free * jacobian.vjp(rest)
        new_size = gradient.flatten(1).square().sum(dim=1)
        ratio = torch.where(active, new_size / torch.where(active, size, 1), 0)
        direction = gradient + per_image(ratio, x) * direction
        size = new_size
    return move, steepest


MAX_STEPS = 800
"""Default number of gradients per image."""

NEAR = 1e-2
"""Largest relative residual at which an image counts as having the features."""


@in_standard_modes
@torch.enable_grad()
def inverse_images(
    space: nn.Module | FeatureSpace,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    start: TensorOrArray | tuple[int, int, int, int],
    *,
    bounds: tuple[float, float] = (0, 1),
    prior: Literal["tv"] | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> InverseImages:
    """Return images within `bounds` whose features are as near `features` as could be found.

    The problem is not convex and has many solutions or none: the residual is measured on the image
    that is returned, and several starts show how different the solutions are.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    features : Tensor or array (B, d), or FeatureBatch
        Features to reach, for example those of images, ``flips.points[:, 0]``,
        ``projection.points`` or a class mean.
    start : Tensor or array (B, C, H, W) or (S, B, C, H, W), or tuple (S, C, H, W)
        One start per row, S starts per row, or the shape of S images of uniform noise within the
        bounds, the same for every row. The result has S along its second dimension, 1 for a
        single start.
    bounds : (float, float)
        Smallest and largest pixel value.
    prior : "tv" or None
        "tv" prefers images of small total variation, at the cost of a larger residual.
    max_steps : int, optional
        Number of gradients per image and start, default 800. A few more are used for the last
        digits if the body is nearly linear.
    seed : int
        Seed of the noise.
    batch_size : int
        Number of images per batch.

    Returns
    -------
    InverseImages
        A row whose features lie outside the domain, or whose features or start are not finite, is
        NaN. So is a row whose start no step improved.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, invalid bounds, or starts outside them, before any work.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> target = space.extract(images).features
    >>> found = fsb.pixels.inverse_images(space, target, demo.test_images[2:4], max_steps=5)
    >>> found.images.shape  # one image per row and start
    torch.Size([2, 1, 1, 28, 28])
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    check_choice("prior", prior, (None, "tv"))
    check_integer("batch_size", batch_size)
    steps = check_integer("max_steps", MAX_STEPS if max_steps is None else max_steps)
    starts = _starts(model, batch_features(features), start, limits, seed)
    rows, count = starts.shape[:2]
    flat = starts.flatten(0, 1)
    first_logits(model, flat[:1], 1)  # finds the head, and checks that the images fit the model
    wanted = check_features(model.head.num_features, features)
    flat = flat.to(wanted.device)
    status = row_status(model.head, wanted).repeat_interleave(count)
    wanted = wanted.repeat_interleave(count, dim=0)
    images = find_images(model, wanted, flat, limits, steps, prior, status, batch_size)
    return _measure(model, wanted, images, flat, status, batch_size, (rows, count))


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
    """Return images (B,C,H,W) whose features are as near `wanted` as could be found.

    Rows whose `status` is not CONVERGED are NaN, and so are rows whose start is not finite; the
    status of these is changed in place. With `warm` images stay near the start.
    """
    finite = torch.isfinite(start.flatten(1)).all(dim=1)
    status[~finite & (status == Status.CONVERGED)] = int(Status.NOT_FINITE)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    smooth = prior == "tv"
    parts = []
    for index in usable.split(batch_size):
        target = wanted[index]
        images = _descend(space, target, start[index], bounds, steps, smooth=smooth, warm=warm)
        parts.append(images if smooth else _polish(space, target, images, bounds))
    return scatter_rows(torch.cat(parts), usable, len(start))


def _measure(
    space: FeatureSpace,
    wanted: Tensor,
    images: Tensor,
    start: Tensor,
    status: Tensor,
    batch_size: int,
    shape: tuple[int, int],
) -> InverseImages:
    """Return the result: features, residuals and status of `images`, measured by the model."""
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    z = scatter_rows(features_of(space, images[usable], batch_size), usable, len(wanted))
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
    by_start = images.reshape(*shape, *images.shape[1:])
    return InverseImages(
        images=by_start,
        features=z.reshape(*shape, z.shape[1]),
        residual=residual.reshape(shape),
        relative_residual=relative.reshape(shape),
        predicted=predicted.reshape(shape),
        boundary_distance=flips.distance[:, 0].reshape(shape),
        spread=_spread(by_start),
        status=status.reshape(shape),
    )


def _spread(images: Tensor) -> Tensor:
    """Return the mean distance between the usable images (B,S,...) of each row, (B,)."""
    flat = images.flatten(2).to(torch.float64)
    distances = (flat[:, :, None] - flat[:, None]).square().sum(dim=3).sqrt()
    count, device = distances.shape[1], distances.device
    first, second = torch.triu_indices(count, count, 1, device=device)
    return distances[:, first, second].nanmean(dim=1)


def _starts(
    space: FeatureSpace, features: object, start: object, bounds: tuple[float, float], seed: int
) -> Tensor:
    """Return the starts (B,S,C,H,W), as given or drawn from noise of a given shape."""
    rows = len(features) if isinstance(features, Tensor) and features.ndim else 0
    fix = "pass one start per row of features, or the shape of noise images"
    if not isinstance(start, tuple):
        shapes = ((rows, "C", "H", "W"), ("S", rows, "C", "H", "W"))
        given = check_shape("start", start, *shapes, fix=fix, nonempty=rows > 0)
        stacked = given[None] if given.ndim == 4 else given
        flat = check_pixels(stacked.flatten(0, 1), bounds, "start")
        return flat.reshape(stacked.shape).movedim(0, 1)
    if len(start) != 4:
        raise ArgumentError("start", repr(start), "a tuple (S, C, H, W)", fix)
    for size in start:
        check_integer("start", size, fix=fix)
    dtype = next((p.dtype for p in space.model.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(start, generator=generator, dtype=dtype)
    noise = bounds[0] + (bounds[1] - bounds[0]) * noise
    return noise.expand(rows, *start)
