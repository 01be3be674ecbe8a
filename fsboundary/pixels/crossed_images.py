"""From images on the boundary to images across it, as a file of 8-bit pixels would keep them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import CrossedImages, FlipImages
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_bounds
from fsboundary.plugins.grading.images import pixel_distance
from fsboundary.space import FeatureSpace, space_of

_LEVELS = 255
_CLIMB = 24
_FIRST, _GROWTH = 1e-3, 1.25
"""Steps up the lead: at most so many, the first this share of the diameter of the box of pixels,
each so much longer than the one before."""

_HALVINGS = 8


def crossed_images(
    model: nn.Module | FeatureSpace,
    flips: FlipImages,
    *,
    margin: float,
    bounds: tuple[float, float] = (0, 1),
    batch_size: int = 128,
) -> CrossedImages:
    """Return images a little beyond `flips`, whose class has really changed.

    Each is rounded to 256 levels, as an image file would, and the model is asked again: the
    target's logit is the largest, by at least `margin`.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        The one that `flips` were found for.
    flips : FlipImages
        Rows without an image stay without.
    margin : float
        Wanted lead of the target over every other class, logit units, at least 0.
    bounds : (float, float)
        As for :func:`flip_images`; level 0 and level 255.
    batch_size : int

    Returns
    -------
    CrossedImages
        ``distance`` is L2, from the flip image. NaN with MAX_STEPS where no image with that
        margin was found, with the status of `flips` where that had no image.

    Raises
    ------
    ArgumentError
        Wrong types, or a margin that is negative or not finite.
    """
    space = space_of(model)
    low, high = check_bounds(bounds)
    _check_flips(flips)
    if not 0 <= margin < torch.inf:
        raise ArgumentError("margin", repr(margin), "a finite number, at least 0", "pass 0.0")
    images = flips.images.clone()
    status = torch.where(flips.ok, int(Status.MAX_STEPS), flips.status)
    lead = torch.full_like(flips.distance, torch.nan)
    crossed = torch.full_like(images, torch.nan)
    found = flips.ok.nonzero()[:, 0]
    for rows in found.split(batch_size) if len(found) else ():
        search = _Crossing(space, images[rows], flips.target[rows], margin, (low, high))
        search.run()
        crossed[rows], lead[rows] = search.best, search.lead
        status[rows[torch.isfinite(search.lead)]] = int(Status.CONVERGED)
    return CrossedImages(
        images=crossed,
        distance=pixel_distance(crossed, images, "l2"),
        margin=lead,
        source=flips.source,
        target=flips.target,
        status=status,
    )


def _check_flips(flips: object) -> None:
    if not isinstance(flips, FlipImages):
        got = f"a {type(flips).__name__}"
        raise ArgumentError("flips", got, "FlipImages", "pass what flip_images returned")


@final
class _Crossing:
    """The nearest 8-bit images beyond some flip images, found up the gradient of the lead."""

    def __init__(
        self,
        space: FeatureSpace,
        images: Tensor,
        target: Tensor,
        margin: float,
        bounds: tuple[float, float],
    ) -> None:
        self._space, self._images, self._target = space, images, target
        self._margin, self._bounds = margin, bounds
        self.best = torch.full_like(images, torch.nan)
        self.lead = torch.full_like(images.flatten(1)[:, 0], torch.nan, dtype=torch.float64)
        self._distance = torch.full_like(self.lead, torch.inf)

    def run(self) -> None:
        """Climb until the margin is reached, then come back along the straight way by halving."""
        low, high = self._bounds
        at = self._images.double()
        step = _FIRST * (high - low) * self._images[0].numel() ** 0.5
        reached = self._try(at)
        end = at.clone()
        for _ in range(_CLIMB):
            if bool(reached.all()):
                break
            at = (at + step * self._direction(at)).clamp(low, high)
            end = torch.where(reached[:, None, None, None], end, at)
            reached |= self._try(at)
            step *= _GROWTH
        bad, good = torch.zeros_like(self.lead), torch.ones_like(self.lead)
        for _ in range(_HALVINGS):
            middle = (bad + good) / 2
            way = end - self._images.double()
            there = self._try(self._images.double() + middle[:, None, None, None] * way)
            good, bad = torch.where(there, middle, good), torch.where(there, bad, middle)

    def _lead(self, images: Tensor) -> Tensor:
        logits = self._space.logits(images).to(self._images.device).double()
        own = logits.gather(1, self._target[:, None])[:, 0]
        return own - logits.scatter(1, self._target[:, None], -torch.inf).amax(dim=1)

    def _direction(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            shown = images.to(self._images.dtype).requires_grad_()
            (gradient,) = torch.autograd.grad(self._lead(shown).sum(), shown)
        size = torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)
        unit = gradient.double() / size[:, None, None, None]
        return torch.nan_to_num(unit, nan=0.0, posinf=0.0, neginf=0.0)

    def _rounded(self, images: Tensor) -> Tensor:
        low, high = self._bounds
        level = ((images - low) / (high - low)).clamp(0, 1).mul(_LEVELS).round()
        return (level / _LEVELS * (high - low) + low).to(self._images.dtype)

    def _try(self, images: Tensor) -> Tensor:
        """Whether rounded `images` reach the margin (R,); the nearest such ones are kept."""
        images = self._rounded(images)
        with torch.no_grad():
            lead = self._lead(images)
        # a margin of 0 still means the target alone is on top
        reached = (lead >= self._margin) & (lead > 0)
        distance = pixel_distance(images, self._images, "l2")
        better = reached & (distance < self._distance)
        self._distance = torch.where(better, distance, self._distance)
        self.lead = torch.where(better, lead, self.lead)
        self.best = torch.where(better[:, None, None, None], images, self.best)
        return reached
