"""Amplification: displacements of features for pixel perturbations of one length.

The largest displacement found is a lower bound of the local modulus of continuity of the features.
"""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.checks import (
    check_instance,
    check_integer,
    check_labels,
    check_number,
    row_status,
)
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import Amplification
from fsboundary.core.rows import TensorOrArray, scatter_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds, check_pixels, measure_accuracy
from fsboundary.pixels.model_calls import (
    FeatureJacobian,
    features_of,
    first_logits,
    norms,
    per_image,
)
from fsboundary.space import FeatureSpace, space_of

_HALVINGS = 60
"""Bisections of the logarithm of a bracket, after which its ends agree to rounding."""


def farthest_move(
    x: Tensor, direction: Tensor, radius: float, bounds: tuple[float, float]
) -> Tensor:
    """Return the move of length `radius` that goes farthest along `direction` within `bounds`.

    That is ``clip(x + s direction) - x`` for some s > 0 (the first-order condition of a linear
    program over a ball and a box). It is shorter if the box ends before, and 0 if the direction
    is 0.

    Parameters
    ----------
    x, direction : Tensor (B, C, H, W)
    radius : float
        L2 length of the move, pixel units.
    bounds : (float, float)
    """
    size = direction.flatten(1).abs().amax(dim=1)
    unit = direction / per_image(torch.where(size > 0, size, 1), x)

    def move(s: Tensor) -> Tensor:
        return (x + per_image(s, x) * unit).clamp(*bounds) - x

    low = torch.full_like(size, radius / x[0].numel() ** 0.5 if len(x) else 1.0)
    # at this s even a pixel at 2^-40 of the fastest one's speed has crossed the whole box
    high = torch.full_like(size, 2.0**40 * max(radius, bounds[1] - bounds[0]))
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        long = norms(move(middle)) > radius
        low, high = torch.where(long, low, middle), torch.where(long, middle, high)
    return move(low)


@in_standard_modes
def vulnerability_by_class(
    found: Amplification, labels: Tensor | None = None
) -> dict[int, dict[str, Any]]:
    """Return statistics of the vulnerability per class, most vulnerable class first.

    Parameters
    ----------
    found : Amplification
        Result of :func:`fsboundary.pixels.amplification`.
    labels : Tensor (B,), optional
        Class of each image, -1 for no label; by default the predicted one.

    Returns
    -------
    dict
        Maps class numbers to ``images`` (number of images without failure), ``median`` and
        ``largest`` vulnerability, ``median_max_displacement`` (feature units) and ``above_one``
        (fraction of images whose features a pixel move displaces at least as far as the boundary
        is).

    Raises
    ------
    ArgumentError
        Wrong types, or not one label per row.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.pixels.amplification(space, images, radius=0.5, directions=3, max_steps=3)
    >>> sorted(fsb.pixels.vulnerability_by_class(found))  # the predicted classes
    [4, 8]
    """
    check_instance("found", found, Amplification, "an Amplification", "call amplification first")
    group = found.predicted if labels is None else labels
    group = check_labels(group, len(found.status)).to(found.status.device)
    valid = torch.isfinite(found.vulnerability) & (group >= 0)
    table = {}
    for k in group[valid].unique().tolist():
        rows = valid & (group == k)
        score = found.vulnerability[rows]
        table[int(k)] = {
            "images": int(rows.sum()),
            "median": float(score.quantile(0.5)),
            "largest": float(score.amax()),
            "median_max_displacement": float(found.max_displacement[rows].quantile(0.5)),
            "above_one": float((score >= 1).double().mean()),
        }
    return dict(sorted(table.items(), key=lambda item: -item[1]["median"]))


def _top_singular_pair(
    view: ModelView, images: Tensor, start: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the top singular value (B,), float64, and its unit direction in pixels (B,C,H,W).

    Lanczos on J Jᵀ with full reorthogonalisation: the products are those of power iteration, one
    with J and one with Jᵀ per step, and the result is the best of the whole Krylov space instead
    of its last vector (Golub and Van Loan, Matrix Computations, 4th ed., section 10.1). The value
    is a lower bound up to rounding, and exact after d steps.

    Parameters
    ----------
    view : ModelView
    images : Tensor or array (B, C, H, W)
    start : Tensor (d,)
        Any vector that is not orthogonal to the solution, the same for every row.
    steps : int
    """
    jacobian = FeatureJacobian(view, images)
    steps = min(steps, len(start))
    begin = start.to(torch.float64).expand(len(images), -1)
    basis = [begin / norms(begin)[:, None]]
    vjps, products = [], []
    for step in range(steps):
        vjps.append(jacobian.vjp(basis[-1].to(jacobian.features)))
        product = jacobian.jvp(vjps[-1]).to(torch.float64)
        products.append(product)
        if step + 1 < steps:
            basis.append(_next_basis_vector(torch.stack(basis, dim=1), product))
    vectors = torch.stack(basis, dim=1)
    projected = torch.einsum("bkd,bjd->bkj", vectors, torch.stack(products, dim=1))
    weights = torch.linalg.eigh(0.5 * (projected + projected.mT)).eigenvectors[..., -1]
    direction = torch.einsum("bk,bkx->bx", weights.to(images), torch.stack(vjps, 1).flatten(2))
    direction = direction.reshape(images.shape)
    size = norms(direction)
    direction = direction / per_image(torch.where(size > 0, size, 1), images)
    return norms(jacobian.jvp(direction).to(torch.float64)), direction


def _next_basis_vector(basis: Tensor, product: Tensor) -> Tensor:
    """Return the unit part (B,d) of `product` orthogonal to `basis` (B,k,d).

    It is 0 if nothing is left: the space is then closed under J Jᵀ and contains the solution.
    """
    rest = product
    for _ in range(2):  # twice, because the first pass leaves rounding
        rest = rest - torch.einsum("bkd,bk->bd", basis, torch.einsum("bkd,bd->bk", basis, rest))
    size, scale = norms(rest), norms(product)
    new = size > 1e-6 * scale  # below the rounding of products in float32
    return torch.where(new[:, None], rest / torch.where(new, size, 1)[:, None], 0)


MAX_STEPS = 20
"""Default number of steps, for the singular value and for the ascent."""


@in_standard_modes
@torch.enable_grad()
def amplification(
    space: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "B C H W"],
    *,
    radius: float,
    flips: Float[TensorOrArray, "B C H W"] | None = None,
    labels: Int[TensorOrArray, " B"] | None = None,
    directions: int = 32,
    bounds: tuple[float, float] = (0, 1),
    max_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Amplification:
    """Return how far the features of images are displaced by pixel moves of length `radius`.

    The largest displacement is searched from both ends of the Jacobian's top singular direction,
    by steps that each go as far along the gradient as ball and bounds allow. The largest of all
    displacements tried is returned, including those of random moves. It is a lower bound of the
    maximum: nothing proves that no move displaces the features farther.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images : Tensor or array (B, C, H, W)
    radius : float
        L2 length of the moves, pixel units. Moves that the bounds cut short are lengthened in the
        other pixels.
    flips : Tensor (B, C, H, W), optional
        An image on the other side of the boundary per row, for example
        ``flip_images(...).images``; NaN rows do not count.
    labels : Tensor (B,), optional
        True classes, used only to warn if accuracy is near chance (:func:`check_accuracy`).
    directions : int
        Number of random directions, the same for every row.
    bounds : (float, float)
        Smallest and largest pixel value.
    max_steps : int, optional
        Number of steps for the singular value, and for the ascent; default 20 each.
    seed : int
        Seed of the random directions and of the start vector for the singular value.
    batch_size : int
        Number of images per batch.

    Returns
    -------
    Amplification

    Raises
    ------
    ArgumentError
        Wrong types or shapes, a radius that is not positive, images outside the bounds.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.pixels.amplification(space, images, radius=0.5, directions=3, max_steps=3)
    >>> found.max_displacement.shape
    torch.Size([2])
    """
    model = space_of(space)
    limits = check_bounds(bounds)
    x = check_pixels(images, limits)
    fix = "pass, for example, 0.5"
    check_instance("radius", radius, (int, float), "a number of pixel units", fix)
    length = check_number("radius", radius, 0, fix=fix)
    steps = check_integer("max_steps", MAX_STEPS if max_steps is None else max_steps)
    check_integer("directions", directions)
    check_integer("batch_size", batch_size)
    ends = torch.full_like(x, torch.nan)
    if flips is not None:
        ends = check_pixels(flips, limits, "flips", like=x).to(x)
    if labels is not None:
        labels = check_labels(labels, len(x))
    first_logits(model, x[:1], 1)  # finds the head, and checks that the images fit the model
    z, status = _features_and_status(model, x, batch_size)
    if labels is not None and len(x):
        known = status == Status.CONVERGED
        predicted = torch.where(known, model.head.predict(z), -1)
        measure_accuracy(predicted, labels, model.head.num_classes)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(directions, *x.shape[1:], generator=generator, dtype=torch.float64)
    start = torch.randn(model.head.num_features, generator=generator, dtype=torch.float64)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    parts = [
        _Search(model, x[i], z[i], length, limits).run(
            ends[i], drawn.to(x), start.to(z.device), steps
        )
        for i in usable.split(batch_size)
    ]
    fields = {
        name: scatter_rows(torch.cat([part[name] for part in parts]), usable, len(x))
        for name in parts[0]
    }
    nearest = flip_points(model.head, z)
    status = torch.where(status == Status.CONVERGED, nearest.status[:, 0], status)
    return Amplification(
        **fields,
        boundary_distance=nearest.distance[:, 0],
        vulnerability=fields["max_displacement"] / nearest.distance[:, 0],
        predicted=nearest.source,
        status=status,
    )


def _features_and_status(space: FeatureSpace, x: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the features (B,d) of `x`, float64, and the status (B,) of its rows."""
    z = space.extract(x, batch_size=batch_size).features.double()
    status = row_status(space.head, z)
    status[~torch.isfinite(x.flatten(1)).all(dim=1)] = int(Status.NOT_FINITE)
    return z, status


@final
class _Search:
    """Search for the move that displaces the features of finite images farthest.

    Parameters
    ----------
    space : FeatureSpace
    x : Tensor (B, C, H, W)
    z : Tensor (B, d), float64
        Features of `x`.
    radius : float
        L2 length of the moves, pixel units.
    bounds : (float, float)
    """

    def __init__(
        self,
        space: FeatureSpace,
        x: Tensor,
        z: Tensor,
        radius: float,
        bounds: tuple[float, float],
    ) -> None:
        self._space, self._x, self._z = space, x, z
        self._radius, self._bounds = radius, bounds
        self._best, self._largest = torch.zeros_like(x), torch.zeros_like(z[:, 0])

    def run(self, ends: Tensor, drawn: Tensor, start: Tensor, steps: int) -> dict[str, Tensor]:
        """Return the fields of an Amplification that need the model.

        Parameters
        ----------
        ends : Tensor (B, C, H, W)
            Images on the other side of the boundary; NaN where there is none.
        drawn : Tensor (N, C, H, W)
            Random directions.
        start : Tensor (d,)
            Start vector for the singular value.
        steps : int
        """
        value, direction = _top_singular_pair(self._space, self._x, start, steps)
        for sign in (1, -1):
            self._ascend(sign * direction, steps)
        random = torch.stack([self._try(one.expand_as(self._x))[1] for one in drawn])
        _, towards = self._try((ends - self._x).nan_to_num())
        missing = torch.isnan(ends).flatten(1).any(dim=1)
        return {
            "max_displacement": self._largest,
            "max_direction": self._best / per_image(norms(self._best), self._x),
            "random_mean": random.mean(dim=0),
            "random_max": random.amax(dim=0),
            "towards_flip": torch.where(missing, torch.nan, towards),
            "singular_value": value,
        }

    def _ascend(self, direction: Tensor, steps: int) -> None:
        """Try `direction`, then the gradient direction at each move, `steps` times."""
        move, _ = self._try(direction)
        for _ in range(steps):
            move, _ = self._try(self._gradient(self._x + move))

    def _try(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return the farthest move along `direction` and its displacement (B,); record the best."""
        move = farthest_move(self._x, direction, self._radius, self._bounds)
        moved = features_of(self._space, self._x + move, len(self._x))
        displacement = norms(moved - self._z)
        better = displacement > self._largest
        self._best = torch.where(per_image(better, move) > 0, move, self._best)
        self._largest = torch.where(better, displacement, self._largest)
        return move, displacement

    def _gradient(self, images: Tensor) -> Tensor:
        """Return the gradient of half the squared distance of the features from those of `x`."""
        with torch.enable_grad():
            x = images.detach().requires_grad_(True)
            z = self._space.features(x)
            # connects a body that ignores its images to them: the gradient is then 0
            z = z + 0 * x.flatten(1).sum(dim=1, keepdim=True).to(z)
            return torch.autograd.grad(z, x, (z.detach().to(self._z) - self._z).to(z))[0]
