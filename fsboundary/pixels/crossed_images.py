"""Crossed images: 8-bit images just beyond flip images, on the other side of the boundary."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fsboundary.core.checks import check_instance, check_number
from fsboundary.core.results import CrossedImages, FlipImages
from fsboundary.core.rows import write_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.checks import check_bounds
from fsboundary.plugins.grading.images import pixel_distance
from fsboundary.space import FeatureSpace, space_of

_LEVELS = 255
"""Largest level of an 8-bit pixel; the smallest is 0."""

_MAX_STEPS = 24
_FIRST_STEP, _GROWTH = 1e-3, 1.25
"""Steps up the gradient of the margin: their maximum number, the length of the first as a fraction
of the diameter of the box of pixels, and the factor between the lengths of successive steps."""

_HALVINGS = 8
"""Bisections of the segment back to the flip image."""


@in_standard_modes
@torch.enable_grad()
def crossed_images(
    model: nn.Module | FeatureSpace,
    flips: FlipImages,
    *,
    margin: float,
    bounds: tuple[float, float] = (0, 1),
    batch_size: int = 128,
) -> CrossedImages:
    """Return images just beyond `flips`, whose predicted class is the target.

    Each image is rounded to 256 levels, as in an image file, and passed through the model again:
    the target's logit is the largest, by at least `margin`.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Model for which `flips` were computed.
    flips : FlipImages
        Flip images; rows without one have no crossed image either.
    margin : float
        Minimum margin of the target over every other class, logit units, at least 0.
    bounds : (float, float)
        Smallest and largest pixel value, as for :func:`flip_images`: levels 0 and 255.
    batch_size : int
        Number of images per batch.

    Returns
    -------
    CrossedImages
        ``distance`` is the L2 distance from the flip image. NaN with MAX_STEPS where no image
        with this margin was found, and with the status of `flips` where that has no image.

    Raises
    ------
    ArgumentError
        Wrong types, or a margin that is negative or not finite.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> flips = fsb.pixels.flip_images(space, images, max_steps=10)
    >>> crossed = fsb.pixels.crossed_images(space, flips, margin=0.1)
    >>> space.extract(crossed.images).predicted.tolist(), flips.target.tolist()
    ([6, 6], [6, 6])
    """
    space = space_of(model)
    low, high = check_bounds(bounds)
    check_instance("flips", flips, FlipImages, "FlipImages", "pass what flip_images returned")
    check_number("margin", margin, 0, closed="low", fix="pass 0.0")
    images = flips.images.clone()
    status = torch.where(flips.ok, int(Status.MAX_STEPS), flips.status)
    fields = {
        "images": torch.full_like(images, torch.nan),
        "margin": torch.full_like(flips.distance, torch.nan),
    }
    usable = flips.ok.nonzero()[:, 0]
    for rows in usable.split(batch_size) if len(usable) else ():
        search = _Crossing(space, images[rows], flips.target[rows], margin, (low, high))
        search.run()
        write_rows(fields, rows, {"images": search.best, "margin": search.margin})
    status[torch.isfinite(fields["margin"])] = int(Status.CONVERGED)
    return CrossedImages(
        **fields,
        distance=pixel_distance(fields["images"], images, "l2"),
        source=flips.source,
        target=flips.target,
        status=status,
    )


@final
class _Crossing:
    """Search for the nearest 8-bit images beyond flip images, up the gradient of the margin."""

    def __init__(
        self,
        space: FeatureSpace,
        images: Tensor,
        target: Tensor,
        margin: float,
        bounds: tuple[float, float],
    ) -> None:
        self._space, self._images, self._target = space, images, target
        self._min_margin, self._bounds = margin, bounds
        self.best = torch.full_like(images, torch.nan)
        self.margin = torch.full_like(images.flatten(1)[:, 0], torch.nan, dtype=torch.float64)
        self._distance = torch.full_like(self.margin, torch.inf)

    def run(self) -> None:
        """Climb until the margin is reached, then bisect the segment back to the flip image."""
        start = self._images.double()
        step = self._climb(start) - start
        below, reached = torch.zeros_like(self.margin), torch.ones_like(self.margin)
        for _ in range(_HALVINGS):
            middle = (below + reached) / 2
            success = self._try(start + middle[:, None, None, None] * step)
            reached = torch.where(success, middle, reached)
            below = torch.where(success, below, middle)

    def _climb(self, start: Tensor) -> Tensor:
        """Return the first images up the gradient that reach the margin, or the last ones."""
        low, high = self._bounds
        x = start
        length = _FIRST_STEP * (high - low) * self._images[0].numel() ** 0.5
        reached = self._try(x)
        end = x.clone()
        for _ in range(_MAX_STEPS):
            if bool(reached.all()):
                break
            x = (x + length * self._direction(x)).clamp(low, high)
            end = torch.where(reached[:, None, None, None], end, x)
            reached |= self._try(x)
            length *= _GROWTH
        return end

    def _target_margin(self, images: Tensor) -> Tensor:
        """Return the margin (R,) of the target over the largest other logit."""
        logits = self._space.logits(images).to(self._images.device).double()
        target = logits.gather(1, self._target[:, None])[:, 0]
        return target - logits.scatter(1, self._target[:, None], -torch.inf).amax(dim=1)

    def _direction(self, images: Tensor) -> Tensor:
        """Return the unit gradient of the margin, 0 where there is none."""
        with torch.enable_grad():
            x = images.to(self._images.dtype).requires_grad_()
            (gradient,) = torch.autograd.grad(self._target_margin(x).sum(), x)
        size = torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)
        unit = gradient.double() / size[:, None, None, None]
        return torch.nan_to_num(unit, nan=0.0, posinf=0.0, neginf=0.0)

    def _round_to_levels(self, images: Tensor) -> Tensor:
        low, high = self._bounds
        level = ((images - low) / (high - low)).clamp(0, 1).mul(_LEVELS).round()
        return (level / _LEVELS * (high - low) + low).to(self._images.dtype)

    def _try(self, images: Tensor) -> Tensor:
        """Return whether rounded `images` reach the margin (R,); record the nearest that do."""
        images = self._round_to_levels(images)
        with torch.no_grad():
            margin = self._target_margin(images)
        # also with a minimum of 0, the target must be the only largest logit
        reached = (margin >= self._min_margin) & (margin > 0)
        distance = pixel_distance(images, self._images, "l2")
        better = reached & (distance < self._distance)
        self._distance = torch.where(better, distance, self._distance)
        self.margin = torch.where(better, margin, self.margin)
        self.best = torch.where(better[:, None, None, None], images, self.best)
        return reached
