"""Which pixels differ between an image and its flip image."""

from __future__ import annotations

from typing import Any, final

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import Target, Tensors, like, opened, parts_of
from fsboundary.attr.methods.flip_baselines import (
    BATCH,
    Finder,
    check_finder,
    finder_of,
    flips_of,
    given_flips,
)
from fsboundary.attr.methods.flip_direction import aim_from, warn_of_zeros
from fsboundary.geometry.batching import over_rows
from fsboundary.pixels.checks import check_bounds
from fsboundary.space import FeatureSpace, space_of

_SAME = "the image and its flip image are equal"


@final
class FlipImageAttribution(PerturbationAttribution):  # type: ignore[misc]  # Captum has no types
    """How much each pixel takes part in the way from an image to its flip image.

    With x the image and x' an image on the boundary, the attribution of pixel m is
    ``(x'_m - x_m)² / |x' - x|``: never negative, in pixel units, and the sum over the image is the
    Euclidean distance ``|x' - x|``.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    finder : callable, optional
        Images (B,...) and classes to reach (B,) to flip images (B,...), NaN where none was found.
        :func:`fsboundary.pixels.flip_images` if left out.
    bounds : (float, float)
        What pixels lie between, in that search. An image that leaves them, as with noise, has a
        range of its own, wider on both sides by as many eighths as it needs.

    Raises
    ------
    ArgumentError
        A finder that cannot be called, or bounds that are none.
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        finder: Finder | None = None,
        bounds: tuple[float, float] = (0, 1),
    ) -> None:
        check_finder(finder)
        self.finder, self.bounds = finder, check_bounds(bounds)
        self.space = space_of(model)
        super().__init__(self.space.logits)

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    def attribute(
        self,
        inputs: Tensors,
        baselines: Tensors | None = None,
        target: Target = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = BATCH,
        show_progress: bool = False,
    ) -> Tensors:
        """Return the attributions of `inputs`, of the same shapes.

        Parameters
        ----------
        inputs : Tensor (B, ...) or tuple of such
            Images, and further inputs of the model.
        baselines : Tensor (B, ...) or tuple of such, optional
            The flip images, found by the finder if left out.
        target : int, list of int, Tensor or None
            The class to reach; None, or the image's own class, for the nearest.
        additional_forward_args : object, optional
            Passed to the model after the inputs; tensors of B rows go with their rows.
        perturbations_per_eval : int
            Images at once.
        show_progress : bool

        Returns
        -------
        Tensor or tuple of Tensor
            Zeros with a warning where image and flip image are equal, or where the features do not
            react to the image; else NaN with a warning where no flip point or flip image was found.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes.
        """
        parts, more, targets = opened(inputs, additional_forward_args, target)
        ends = given_flips(parts, more, baselines, self.finder)
        find = finder_of(self.space, self.finder, self.bounds)
        done: list[tuple[Tensor, ...]] = []
        for here, args, (goal_class,), end in parts_of(
            len(parts[0]), perturbations_per_eval, show_progress, parts, more, (targets,), ends
        ):
            # flip images that were given need no flip points
            goal = aim_from(self.space, here, args, goal_class, quiet=bool(end))
            flips = flips_of(self.space, here, args, goal, end, find)
            found = _squares(here, flips)
            warn_of_zeros(found, torch.ones(len(here[0]), dtype=torch.bool), _SAME)
            done.append(found)
        return like(inputs, tuple(torch.cat(pieces) for pieces in zip(*done, strict=True)))


def _squares(starts: tuple[Tensor, ...], ends: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    ways = [e.double() - x.detach().double() for x, e in zip(starts, ends, strict=True)]
    total = torch.stack([w.flatten(1).square().sum(dim=1) for w in ways]).sum(dim=0).sqrt()
    total = torch.where(total == 0, 1.0, total)
    return tuple(
        (w.square() / over_rows(total, w)).to(x) for w, x in zip(ways, starts, strict=True)
    )
