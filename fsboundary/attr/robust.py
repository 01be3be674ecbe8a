"""A perturbation for captum.robust that pushes images towards their decision boundary."""

from __future__ import annotations

from typing import Any, final

import torch
from captum.robust import Perturbation
from torch import Tensor, nn

from fsboundary.attr.comparison.arguments import check_count
from fsboundary.attr.methods.arguments import Target, Tensors, like, opened
from fsboundary.attr.methods.flip_direction import aim_from, pulled_back, warn, watched_features
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import over_rows
from fsboundary.space import FeatureSpace, space_of


@final
class BoundaryPush(Perturbation):  # type: ignore[misc]  # Captum ships no types
    """Push images towards their decision boundary, and beyond it, by a given amount.

    An image moves in small steps along the pixel gradient of its features' component in the
    direction of its flip point, which is found once, at the image itself.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
    steps : int
        Steps of equal length. More follow the bends of the way better.
    lower_bound, upper_bound : float
        Pixels are kept within these; images that meet them move less than was asked for.

    Examples
    --------
    ::

        push = BoundaryPush(space, lower_bound=0.0, upper_bound=1.0)
        search = captum.robust.MinParamPerturbation(
            space.logits, push, arg_name="amount", arg_min=0.0, arg_max=5.0, arg_step=0.1
        )
        pushed, amount = search.evaluate(images[:1], target=predicted[:1])
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
        self._steps = check_count("steps", steps, 1)
        if not lower_bound < upper_bound:
            got = f"{lower_bound} and {upper_bound}"
            wanted = "a lower bound below the upper bound"
            raise ArgumentError("lower_bound, upper_bound", got, wanted, "pass 0 and 1, say")
        self._bounds = float(lower_bound), float(upper_bound)

    def perturb(
        self,
        inputs: Tensors,
        amount: float,
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensors:
        """Return the images, pushed.

        Parameters
        ----------
        inputs : Tensor (B, ...) or tuple of one
        amount : float
            Length of the way, L2 norm in pixel units, at least 0.
        target : int, list of int, Tensor or None
            The class to reach; None for the nearest. Where it is the image's own, the image is
            pushed straight away from the nearest boundary.
        additional_forward_args : object, optional
            One argument of the model after the images, or a tuple of them.

        Returns
        -------
        Tensor or tuple of one
            Detached, in the images' dtype. Rows that cannot be pushed are NaN, with a warning:
            they have no flip point, lie on the boundary, or do not move the features.

        Raises
        ------
        ArgumentError
            More than one tensor of inputs, a negative amount, or no such class.
        """
        parts, additional, targets = opened(inputs, additional_forward_args, target)
        if len(parts) != 1:
            fix = "pass other inputs as additional_forward_args"
            raise ArgumentError("inputs", f"{len(parts)} tensors", "images alone", fix)
        if not 0 <= amount < float("inf"):
            fix = "pass a length in pixel units"
            raise ArgumentError("amount", repr(amount), "a finite number, at least 0", fix)
        images = parts[0].detach()
        unit = aim_from(self._space, (images,), additional, targets).unit
        pushed = images
        for _ in range(self._steps):
            step = self._gradient(pushed, unit, additional)
            moved = pushed.double() + amount / self._steps * step
            pushed = moved.clamp(*self._bounds).to(images.dtype)
        stuck = torch.isnan(pushed).flatten(1).any(dim=1)
        # of rows without a direction was warned already
        still = stuck & torch.isfinite(unit).all(dim=1).to(stuck.device)
        if bool(still.any()):
            warn("the image cannot be pushed, for its gradient is zero, and is NaN", still)
        return like(inputs, (pushed.masked_fill(over_rows(stuck, pushed), torch.nan),))

    def _gradient(self, images: Tensor, unit: Tensor, additional: tuple[Any, ...]) -> Tensor:
        """Return the pixel gradient of the features along `unit` (B,d), of length 1 or NaN."""
        leaves, features = watched_features(self._space, (images,), additional)
        (gradient,) = pulled_back(features, leaves, unit)
        flat = gradient.flatten(1).double()
        flat = flat / flat.abs().amax(dim=1, keepdim=True)
        length = flat.norm(dim=1, keepdim=True)
        unit_step: Tensor = (flat / length).reshape(images.shape)
        return unit_step
