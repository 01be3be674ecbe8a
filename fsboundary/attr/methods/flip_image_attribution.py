"""Attribution of pixels by their difference between an image and its flip image."""

from __future__ import annotations

from typing import Any, final

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import (
    Inputs,
    Target,
    Tensors,
    format_output,
    iterate_batches,
    unpack_arguments,
)
from fsboundary.attr.methods.flip_baselines import (
    BATCH,
    Finder,
    FlipBaselines,
)
from fsboundary.attr.methods.flip_direction import flip_direction, warn_zero_attributions
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of

_SAME = "the image and its flip image are equal"


@final
class FlipImageAttribution(PerturbationAttribution):  # type: ignore[misc]  # Captum has no types
    """Contribution of each pixel to the distance between an image and its flip image.

    With x the image and x' an image on the boundary, the attribution of pixel m is
    ``(x'_m - x_m)² / |x' - x|``: never negative, in pixel units, and the sum over the image is the
    Euclidean distance ``|x' - x|``.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    finder : callable, optional
        Function from images (B,...) and classes to reach (B,) to flip images (B,...), NaN where
        none was found. Default: :func:`fsboundary.pixels.flip_images`.
    bounds : (float, float)
        Range of the pixels in that search. An image outside it, for example with added noise, gets
        its own range, wider on both sides by as many eighths as it needs.

    Raises
    ------
    ArgumentError
        A finder that is not callable, or invalid bounds.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> def find(images, target):
    ...     return fsb.pixels.flip_images(space, images, max_steps=10).images
    >>> fsb.attr.FlipImageAttribution(space, finder=find).attribute(images).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        finder: Finder | None = None,
        bounds: tuple[float, float] = (0, 1),
    ) -> None:
        self.space = space_of(model)
        self._flips = FlipBaselines(self.space, finder, bounds)
        super().__init__(self.space.logits)

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    @in_standard_modes
    def attribute(
        self,
        inputs: Inputs,
        baselines: Inputs | None = None,
        target: Target = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = BATCH,
        show_progress: bool = False,
    ) -> Tensors:
        """Return the attributions of `inputs`, of the same shapes.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), or tuple of such
            Images, and further inputs of the model.
        baselines : Tensor (B, ...) or tuple of such, optional
            Flip images; computed by the finder if left out.
        target : int, list of int, Tensor or None
            Class to reach; None, or the image's own class, for the nearest.
        additional_forward_args : object, optional
            Arguments of the model after the inputs; tensors of B rows are split with the rows.
        perturbations_per_eval : int
            Number of images per batch.
        show_progress : bool

        Returns
        -------
        Tensor or tuple of Tensor
            Attributions; zeros with a warning where image and flip image are equal, or where the
            features do not react to the image; else NaN with a warning where no flip point or flip
            image was found.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes.
        """
        parts, more, targets = unpack_arguments(inputs, additional_forward_args, target)
        ends = self._flips.read(parts, more, baselines)
        done: list[tuple[Tensor, ...]] = []
        for batch, args, (batch_targets,), batch_ends in iterate_batches(
            len(parts[0]), perturbations_per_eval, show_progress, parts, more, (targets,), ends
        ):
            # flip images that were passed need no flip points
            quiet = bool(batch_ends)
            direction = flip_direction(self.space, batch, args, batch_targets, quiet=quiet)
            flips = self._flips.resolve(batch, args, direction, batch_ends)
            result = _squares_over_length(batch, flips)
            warn_zero_attributions(result, torch.ones(len(batch[0]), dtype=torch.bool), _SAME)
            done.append(result)
        return format_output(inputs, tuple(torch.cat(pieces) for pieces in zip(*done, strict=True)))


def _squares_over_length(
    starts: tuple[Tensor, ...], ends: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    changes = [e.double() - x.detach().double() for x, e in zip(starts, ends, strict=True)]
    length = torch.stack([c.flatten(1).square().sum(dim=1) for c in changes]).sum(dim=0).sqrt()
    length = torch.where(length == 0, 1.0, length)
    return tuple(
        (c.square() / unsqueeze_like(length, c)).to(x) for c, x in zip(changes, starts, strict=True)
    )
