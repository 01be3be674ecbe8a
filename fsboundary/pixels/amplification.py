"""Moves of an image of a given length within the bounds.

Vulnerability class by class.

The largest singular value of the features' Jacobian at an image, and its direction.

How far features move when an image moves a little.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.checks import row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import Amplification
from fsboundary.core.status import Status
from fsboundary.pixels.checks import (
    check_bounds,
    check_count,
    check_labels,
    check_pixels,
    spread_rows,
    told_accuracy,
)
from fsboundary.pixels.model_calls import Linearised, features_of, first_logits, norms, per_image
from fsboundary.space import FeatureSpace, space_of

_HALVINGS = 60
"""Halvings of the logarithm of a bracket: its ends then agree to rounding."""


def farthest_along(
    x: Tensor, direction: Tensor, radius: float, bounds: tuple[float, float]
) -> Tensor:
    """Return the move of length `radius` that goes farthest along `direction` within `bounds`.

    That is ``clip(x + s direction) - x`` for some s > 0 (the first-order condition of a linear
    programme over a ball and a box). It is shorter where the box ends before, and 0 where the
    direction is 0.

    Parameters
    ----------
    x, direction : Tensor (B, C, H, W)
    radius : float
        Pixel units, L2.
    bounds : (float, float)
    """
    size = direction.flatten(1).abs().amax(dim=1)
    unit = direction / per_image(torch.where(size > 0, size, 1), x)

    def move(s: Tensor) -> Tensor:
        return (x + per_image(s, x) * unit).clamp(*bounds) - x

    low = torch.full_like(size, radius / x[0].numel() ** 0.5 if len(x) else 1.0)
    # a pixel that moves at 2^-40 of the fastest one's pace has then crossed the whole box
    high = torch.full_like(size, 2.0**40 * max(radius, bounds[1] - bounds[0]))
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        long = norms(move(middle)) > radius
        low, high = torch.where(long, low, middle), torch.where(long, middle, high)
    return move(low)


def vulnerability_by_class(
    found: Amplification, labels: Tensor | None = None
) -> dict[int, dict[str, Any]]:
    """Return how vulnerable the images of each class are, most vulnerable class first.

    Parameters
    ----------
    found : Amplification
    labels : Tensor (B,), optional
        Class of each image; the predicted one if left out.

    Returns
    -------
    dict
        From class number to ``images`` (how many without failure), ``median`` and ``largest``
        vulnerability, ``median_max_displacement`` (feature units) and ``above_one`` (share of images whose
        features a pixel move takes at least as far as the boundary is).

    Raises
    ------
    ArgumentError
        Not one label for each row.
    """
    if not isinstance(found, Amplification):
        raise ArgumentError(
            "found", f"a {type(found).__name__}", "an Amplification", "call amplification first"
        )
    group = found.predicted if labels is None else labels
    if not isinstance(group, Tensor) or group.shape != found.status.shape:
        got = f"shape {tuple(group.shape)}" if isinstance(group, Tensor) else repr(group)
        raise ArgumentError("labels", got, f"shape {tuple(found.status.shape)}", "pass one a row")
    fine = torch.isfinite(found.vulnerability)
    table = {}
    for k in group[fine].unique().tolist():
        rows = fine & (group == k)
        score = found.vulnerability[rows]
        table[int(k)] = {
            "images": int(rows.sum()),
            "median": float(score.quantile(0.5)),
            "largest": float(score.amax()),
            "median_max_displacement": float(found.max_displacement[rows].quantile(0.5)),
            "above_one": float((score >= 1).double().mean()),
        }
    return dict(sorted(table.items(), key=lambda item: -item[1]["median"]))


def top_singular(
    view: ModelView, images: Tensor, begin: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the top singular value (B,), float64, and its unit direction in pixels (B,C,H,W).

    Lanczos on J Jᵀ with every vector kept orthogonal: the products are those of power iteration,
    one with J and one with Jᵀ a step, and the answer is the best of the whole Krylov space instead
    of its last vector (Golub and Van Loan, Matrix Computations, 4th ed., section 10.1). The value
    is a lower bound up to rounding, and exact after d steps.

    Parameters
    ----------
    view : ModelView
    images : Tensor (B, C, H, W)
    begin : Tensor (d,)
        Any vector that is not orthogonal to the answer, the same for every row.
    steps : int
    """
    near = Linearised(view, images)
    start = begin.to(torch.float64).expand(len(images), -1)
    basis = [start / norms(start)[:, None]]
    pulled, products = [], []
    for step in range(min(steps, len(begin))):
        pulled.append(near.back(basis[-1].to(near.features)))
        product = near.along(pulled[-1]).to(torch.float64)
        products.append(product)
        if step + 1 == min(steps, len(begin)):
            break
        kept = torch.stack(basis, dim=1)
        rest = product
        for _ in range(2):  # once more, for what rounding left of the first time
            rest = rest - torch.einsum("bkd,bk->bd", kept, torch.einsum("bkd,bd->bk", kept, rest))
        size, scale = norms(rest), norms(product)
        # nothing new: the space is closed under J Jᵀ and holds the answer
        new = size > 1e-6 * scale  # below the rounding of products in float32
        basis.append(torch.where(new[:, None], rest / torch.where(new, size, 1)[:, None], 0))
    kept = torch.stack(basis, dim=1)
    small = torch.einsum("bkd,bjd->bkj", kept, torch.stack(products, dim=1))
    weights = torch.linalg.eigh(0.5 * (small + small.mT)).eigenvectors[..., -1]
    direction = torch.einsum("bk,bkx->bx", weights.to(images), torch.stack(pulled, 1).flatten(2))
    direction = direction.reshape(images.shape)
    size = norms(direction)
    direction = direction / per_image(torch.where(size > 0, size, 1), images)
    return norms(near.along(direction).to(torch.float64)), direction


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
        else torch.full_like(x if name == "max_direction" else z[:, 0], torch.nan)
        for name in _MEASURED
    }
    near = flip_points(model.head, z)
    status = torch.where(status == Status.CONVERGED, near.status[:, 0], status)
    return Amplification(
        **found,
        boundary_distance=near.distance[:, 0],
        vulnerability=found["max_displacement"] / near.distance[:, 0],
        predicted=near.source,
        status=status,
    )


_MEASURED = (
    "max_displacement",
    "max_direction",
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
        "max_displacement": worst,
        "max_direction": best / per_image(norms(best), x),
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
