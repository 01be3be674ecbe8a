"""How far features move when an image moves a little."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.boundaries import find_flip_points
from fsboundary.core.checks import row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Amplification
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.pixels.classes import first_logits
from fsboundary.pixels.inputs import check_count, check_labels, spread_rows, told_accuracy
from fsboundary.pixels.jacobian import features_of, norms, per_image
from fsboundary.pixels.moves import farthest_along
from fsboundary.pixels.singular import top_singular
from fsboundary.space import FeatureSpace, space_of

MAX_STEPS = 20
"""Default steps, of the singular value and of the ascent."""


def amplification(
    space: nn.Module | FeatureSpace,
    images: Float[Tensor, "B C H W"],
    *,
    radius: float,
    flips: Float[Tensor, "B C H W"] | None = None,
    labels: Int[Tensor, " B"] | None = None,
    directions: int = 32,
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Amplification:
    """Return how far the features of images move for pixel moves of length `radius`.

    The worst move is looked for from both ends of the Jacobian's top singular direction, by steps
    that each go as far along the gradient as ball and bounds allow. The longest move of all that
    were tried is kept, random ones too. It is a lower bound of the worst: nothing proves that no
    move goes farther.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images : Tensor (B, C, H, W)
    radius : float
        Length of the moves, L2, pixel units. Moves that the bounds cut short are lengthened in the
        other pixels.
    flips : Tensor (B, C, H, W), optional
        An image on the other side of the boundary for each row, for example
        ``flip_images(...).images``; NaN rows are left out.
    labels : Tensor (B,), optional
        A UserWarning tells where the model's accuracy is near chance (:func:`check_accuracy`).
    directions : int
        Random directions, the same for every row.
    bounds : (float, float)
        Least and largest pixel value.
    max_steps : int, optional
        Steps of the singular value, and of the ascent; default 20 each.
    seed : int
        For the random directions and the start of the singular value.
    batch_size : int
        Images at once.

    Returns
    -------
    Amplification

    Raises
    ------
    ArgumentError
        Wrong types or shapes, a radius that is not positive, images outside the bounds.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    x = check_pixels(images, limits)
    length = _check_radius(radius)
    steps = check_count("max_steps", MAX_STEPS if max_steps is None else max_steps)
    check_count("directions", directions)
    check_count("batch_size", batch_size)
    ends = _check_flips(x, flips, limits)
    if labels is not None:
        check_labels(labels, len(x))
    first_logits(model, x[:1], 1)  # finds the head, and out whether the images fit
    z = model.extract(x, batch_size=batch_size).features.double()
    status = row_status(model.head, z)
    status[~torch.isfinite(x.flatten(1)).all(dim=1)] = int(Status.NOT_FINITE)
    if labels is not None and len(x):
        known = status == Status.CONVERGED
        told_accuracy(torch.where(known, model.head.predict(z), -1), labels, model.head.num_classes)
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(directions, *x.shape[1:], generator=generator, dtype=torch.float64)
    begin = torch.randn(model.head.num_features, generator=generator, dtype=torch.float64)
    parts = [
        _measure(model, x[i], z[i], ends[i], drawn.to(x), begin.to(z.device), length, limits, steps)
        for i in fine.split(batch_size)
    ]
    found = {
        name: spread_rows(torch.cat([part[name] for part in parts]), fine, len(x))
        if parts
        else torch.full_like(x if name == "worst_direction" else z[:, 0], torch.nan)
        for name in _MEASURED
    }
    near = find_flip_points(model.head, z)
    status = torch.where(status == Status.CONVERGED, near.status[:, 0], status)
    return Amplification(
        **found,
        boundary_distance=near.distance[:, 0],
        vulnerability=found["worst"] / near.distance[:, 0],
        predicted=near.source,
        status=status,
    )


_MEASURED = (
    "worst",
    "worst_direction",
    "random_mean",
    "random_max",
    "towards_flip",
    "singular_value",
)


def _measure(
    space: FeatureSpace,
    x: Tensor,
    z: Tensor,
    ends: Tensor,
    drawn: Tensor,
    begin: Tensor,
    radius: float,
    bounds: tuple[float, float],
    steps: int,
) -> dict[str, Tensor]:
    """Return the fields of finite rows that need the model."""

    def moved(direction: Tensor) -> tuple[Tensor, Tensor]:
        move = farthest_along(x, direction, radius, bounds)
        return move, norms(features_of(space, x + move, len(x)) - z)

    value, direction = top_singular(space, x, begin, steps)
    best, worst = torch.zeros_like(x), torch.zeros_like(value)
    for sign in (1, -1):
        move, far = moved(sign * direction)
        for _ in range(steps):
            best, worst = _better(best, worst, move, far)
            move, far = moved(_uphill(space, x + move, z))
        best, worst = _better(best, worst, move, far)
    random = []
    for along in drawn:
        move, far = moved(along.expand_as(x))
        best, worst = _better(best, worst, move, far)
        random.append(far)
    move, towards = moved((ends - x).nan_to_num())
    best, worst = _better(best, worst, move, towards)
    return {
        "worst": worst,
        "worst_direction": best / per_image(norms(best), x),
        "random_mean": torch.stack(random).mean(dim=0),
        "random_max": torch.stack(random).amax(dim=0),
        "towards_flip": torch.where(torch.isnan(ends).flatten(1).any(dim=1), torch.nan, towards),
        "singular_value": value,
    }


def _better(best: Tensor, worst: Tensor, move: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    keep = far > worst
    return torch.where(per_image(keep, best) > 0, move, best), torch.where(keep, far, worst)


def _uphill(space: FeatureSpace, images: Tensor, z: Tensor) -> Tensor:
    """Return the gradient of half the squared distance of the features from `z`."""
    with torch.enable_grad():
        x = images.detach().requires_grad_(True)
        now = space.features(x)
        now = now + 0 * x.flatten(1).sum(dim=1, keepdim=True).to(now)
        return torch.autograd.grad(now, x, (now.detach().to(z) - z).to(now))[0]


def _check_radius(radius: object) -> float:
    number = isinstance(radius, int | float) and not isinstance(radius, bool)
    if not number or not 0 < float(radius) < math.inf:  # type: ignore[arg-type]  # a number, checked just before
        raise ArgumentError(
            "radius", repr(radius), "a positive number of pixel units", "pass 0.5, say"
        )
    return float(radius)  # type: ignore[arg-type]  # as above


def _check_flips(x: Tensor, flips: object, bounds: tuple[float, float]) -> Tensor:
    """Return the flip images (B,C,H,W), NaN where none was given, or raise ArgumentError."""
    if flips is None:
        return torch.full_like(x, torch.nan)
    ends = check_pixels(flips, bounds, "flips")
    if ends.shape != x.shape:
        raise ArgumentError(
            "flips",
            f"shape {tuple(ends.shape)}",
            f"{tuple(x.shape)}, that of images",
            "pass one flip image for each image",
        )
    return ends.to(x)
