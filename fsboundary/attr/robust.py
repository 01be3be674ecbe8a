"""A perturbation for captum.robust that pushes images towards their decision boundary."""

from __future__ import annotations

from typing import Any, final

import torch
from captum.robust import Perturbation
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import (
    Inputs,
    Target,
    Tensors,
    format_output,
    unpack_arguments,
)
from fsboundary.attr.methods.flip_direction import (
    differentiable_features,
    feature_vjp,
    flip_direction,
    warn,
)
from fsboundary.core.checks import check_integer, check_number
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of


@final
class BoundaryPush(Perturbation):  # type: ignore[misc]  # Captum ships no types
    """Push images towards their decision boundary, and across it, by a given amount.

    An image moves in small steps along the pixel gradient of its features' component in the
    direction of its flip point. The flip point is computed once, at the image itself.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
    steps : int
        Number of steps of equal length. More steps follow a curved path more closely.
    lower_bound, upper_bound : float
        Range to which pixels are clamped; images that reach it move less than `amount`.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> push = fsb.attr.BoundaryPush(space, steps=5, lower_bound=0.0, upper_bound=1.0)
    >>> pushed = push.perturb(images, 0.5)
    >>> pushed.shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        *,
        steps: int = 10,
        lower_bound: float = float("-inf"),
        upper_bound: float = float("inf"),
    ) -> None:
        self._space = space_of(model)
        self._steps = check_integer("steps", steps)
        if not lower_bound < upper_bound:
            got = f"{lower_bound} and {upper_bound}"
            wanted = "a lower bound below the upper bound"
            fix = "pass 0 and 1, for example"
            raise ArgumentError("lower_bound, upper_bound", got, wanted, fix)
        self._bounds = float(lower_bound), float(upper_bound)

    @in_standard_modes
    def perturb(
        self,
        inputs: Inputs,
        amount: float,
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensors:
        """Return the pushed images.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), or tuple of one
        amount : float
            Length of the path, L2 norm in pixel units, at least 0.
        target : int, list of int, Tensor or None
            Class to reach; None for the nearest. If it is the image's own class, the image is
            pushed straight away from the nearest boundary.
        additional_forward_args : object, optional
            One argument of the model after the images, or a tuple of them.

        Returns
        -------
        Tensor or tuple of one
            Images, detached, in the dtype of the input. Rows that cannot be pushed are NaN, with
            a warning: they have no flip point, lie on the boundary, or do not move the features.

        Raises
        ------
        ArgumentError
            More than one tensor of inputs, a negative amount, or a class that does not exist.
        """
        parts, additional, targets = unpack_arguments(inputs, additional_forward_args, target)
        if len(parts) != 1:
            fix = "pass other inputs as additional_forward_args"
            raise ArgumentError("inputs", f"{len(parts)} tensors", "one tensor of images", fix)
        check_number("amount", amount, 0, closed="low", fix="pass a length in pixel units")
        images = parts[0].detach()
        unit = flip_direction(self._space, (images,), additional, targets).unit
        pushed = images
        for _ in range(self._steps):
            step = self._gradient(pushed, unit, additional)
            moved = pushed.double() + amount / self._steps * step
            pushed = moved.clamp(*self._bounds).to(images.dtype)
        stuck = torch.isnan(pushed).flatten(1).any(dim=1)
        # rows without a direction were already reported
        zero_gradient = stuck & torch.isfinite(unit).all(dim=1).to(stuck.device)
        if bool(zero_gradient.any()):
            message = "the image cannot be pushed because its gradient is zero: the result is NaN"
            warn(message, zero_gradient)
        return format_output(
            inputs, (pushed.masked_fill(unsqueeze_like(stuck, pushed), torch.nan),)
        )

    def _gradient(self, images: Tensor, unit: Tensor, additional: tuple[Any, ...]) -> Tensor:
        """Return the pixel gradient of the features along `unit` (B,d), of length 1 or NaN."""
        leaves, features = differentiable_features(self._space, (images,), additional)
        (gradient,) = feature_vjp(features, leaves, unit)
        flat = gradient.flatten(1).double()
        flat = flat / flat.abs().amax(dim=1, keepdim=True)
        length = flat.norm(dim=1, keepdim=True)
        unit_step: Tensor = (flat / length).reshape(images.shape)
        return unit_step
