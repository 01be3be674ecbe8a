"""Attribution of pixels by how much they move the features towards the boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final

import torch
from captum.attr import GradientAttribution, IntegratedGradients
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import (
    Inputs,
    Target,
    Tensors,
    as_arguments,
    as_tuple,
    format_output,
    iterate_batches,
    target_rows,
    unpack_arguments,
)
from fsboundary.attr.methods.flip_baselines import (
    Finder,
    FlipBaselines,
)
from fsboundary.attr.methods.flip_direction import (
    FlipDirection,
    differentiable_features,
    feature_flip_direction,
    feature_vjp,
    flip_direction,
    warn_zero_attributions,
)
from fsboundary.core.checks import check_choice
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of

Kind = Literal["gradient", "times_input", "integrated"]
_FLAT = "the features do not react to these inputs along the direction to the flip point"


@final
class BoundaryDirection(GradientAttribution):  # type: ignore[misc]  # Captum has no types
    """Attribution of inputs, such as pixels, by their effect along the direction to the flip point.

    With u the unit vector of that direction, held fixed, and f the features, the attribution is the
    gradient of ``u . f`` with respect to the input, in feature units per unit of the input, such as
    a pixel unit. Positive values mean that increasing the input moves the example towards the
    target.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    kind : "gradient", "times_input" or "integrated"
        The gradient; the gradient times the input; or the mean gradient on the straight path from
        the image to its flip image, times their difference. The last sums to the displacement of
        the features along u between the two, in feature units, up to the convergence delta.
    finder : callable, optional
        Function for "integrated": from images (B,...) and classes to reach (B,) to flip images
        (B,...), NaN where none was found. Default: :func:`fsboundary.pixels.flip_images`.
    bounds : (float, float)
        Range of the pixels in that search. An image outside it, for example with added noise, gets
        its own range, wider on both sides by as many eighths as it needs.

    Raises
    ------
    ArgumentError
        Unknown kind, a finder that is not callable, or invalid bounds.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> fsb.attr.BoundaryDirection(space).attribute(images).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        kind: Kind = "gradient",
        finder: Finder | None = None,
        bounds: tuple[float, float] = (0, 1),
    ) -> None:
        check_choice("kind", kind, ("gradient", "times_input", "integrated"))
        self.space = space_of(model)
        self._flips = FlipBaselines(self.space, finder, bounds)
        super().__init__(self.space.logits)
        self.kind = kind

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the attribution is multiplied by the input or its difference to the flip image.

        False for the gradient only.
        """
        return self.kind != "gradient"

    def has_convergence_delta(self) -> bool:
        """Return whether the attribution has a known sum: True for "integrated"."""
        return self.kind == "integrated"

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    @in_standard_modes
    def attribute(
        self,
        inputs: Inputs,
        baselines: Inputs | None = None,
        target: Target = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        show_progress: bool = False,
    ) -> Tensors | tuple[Tensors, Tensor]:
        """Return the attributions of `inputs`, of the same shapes.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), or tuple of such
            First inputs of the model, such as images; all floating, so that they have gradients.
        baselines : Tensor (B, ...) or tuple of such, optional
            Flip images, only for "integrated"; computed by `finder` if left out.
        target : int, list of int, Tensor or None
            Class to reach; None for the nearest. If it is the example's own class, the direction
            is straight away from the nearest flip point, and the flip image is the nearest one.
        additional_forward_args : object, optional
            Arguments of the model after the inputs; tensors of B rows are split with the rows.
        n_steps, method
            Options of the integral, as for ``captum.attr.IntegratedGradients``.
        internal_batch_size : int, optional
            Number of rows, or of steps times rows, per batch.
        return_convergence_delta : bool
            Whether to return also, (B,), the sum of the attributions minus its exact value.
        show_progress : bool

        Returns
        -------
        Tensor or tuple of Tensor, or a pair of these and the deltas (B,)
            Attributions; zeros with a warning where the example is on the boundary or the
            features do not react; else NaN with a warning where no flip point or flip image was
            found.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes, baselines or a delta for a kind that has none, or a
            model without gradients.
        """
        parts, more, targets = unpack_arguments(inputs, additional_forward_args, target)
        ends: tuple[Tensor, ...] = ()
        if self.kind == "integrated":
            ends = self._flips.read(parts, more, baselines)
        elif baselines is not None:
            # a class passed by position, as for Saliency's target, would be taken for baselines
            wanted = f'none for kind="{self.kind}"'
            fix = 'pass the class as target=, or use kind="integrated"'
            raise ArgumentError("baselines", _short(baselines), wanted, fix)
        if return_convergence_delta and not self.has_convergence_delta():
            fix = 'use BoundaryDirection(model, kind="integrated")'
            raise ArgumentError("return_convergence_delta", "True", f"False for {self.kind}", fix)
        done: list[tuple[Tensor, ...]] = []
        tuples = (parts, more, (targets,), ends)
        for batch, args, (batch_targets,), batch_ends in iterate_batches(
            len(parts[0]), internal_batch_size, show_progress, *tuples
        ):
            if self.kind == "integrated":
                direction = flip_direction(self.space, batch, args, batch_targets)
                flips = self._flips.resolve(batch, args, direction, batch_ends)
                # Captum needs room for at least all rows of one step
                size = internal_batch_size and max(internal_batch_size, len(batch[0]))
                result = self._integrated(batch, args, direction, flips, (n_steps, method, size))
                gradients = result[:-1]
            else:
                leaves, features = differentiable_features(self.space, batch, args)
                direction = feature_flip_direction(self.space.head, features, batch_targets)
                gradients = feature_vjp(features, leaves, direction.unit)
                maps = gradients
                if self.kind == "times_input":
                    maps = tuple(g * x.detach() for g, x in zip(gradients, batch, strict=True))
                result = (*maps, direction.unit.new_zeros(len(batch[0])))
            distance = direction.distance
            warn_zero_attributions(gradients, torch.isfinite(distance) & (distance > 0), _FLAT)
            done.append(result)
        *attributions, delta = (torch.cat(pieces) for pieces in zip(*done, strict=True))
        out = format_output(inputs, tuple(attributions))
        return (out, delta) if return_convergence_delta else out

    def _along(self, count: int) -> Callable[..., Tensor]:
        """Return the function ``u . f`` of `count` inputs, u and additional arguments: (B,)."""

        def along(*values: Any) -> Tensor:
            features = self.space.features(*values[:count], *values[count + 1 :])
            out: Tensor = (features * values[count].to(features)).sum(dim=1)
            return out

        return along

    def _integrated(
        self,
        inputs: tuple[Tensor, ...],
        more: tuple[Any, ...],
        direction: FlipDirection,
        flips: tuple[Tensor, ...],
        integral: tuple[int, str, int | None],
    ) -> tuple[Tensor, ...]:
        """Return the attributions and the delta (B,)."""
        n_steps, method, size = integral
        if not len(inputs[0]):  # Captum does not accept an empty batch
            return (*(x.detach() for x in inputs), direction.distance)
        missing = torch.isnan(flips[0]).flatten(1).any(dim=1)
        starts = tuple(x.detach() for x in inputs)
        # the path of a row without a flip image is a point, and is masked afterwards
        ends = tuple(
            torch.where(torch.isnan(e), x, e).requires_grad_()
            for e, x in zip(flips, starts, strict=True)
        )
        attributions, delta = IntegratedGradients(self._along(len(inputs))).attribute(
            ends,
            baselines=starts,
            additional_forward_args=(direction.unit, *more),
            n_steps=n_steps,
            method=method,
            internal_batch_size=size,
            return_convergence_delta=True,
        )
        masked = [x.masked_fill(unsqueeze_like(missing, x), torch.nan) for x in attributions]
        return (*(x.detach() for x in masked), delta.detach().masked_fill(missing, torch.nan))

    @in_standard_modes
    def compute_convergence_delta(
        self,
        attributions: Tensors,
        start_point: Tensors,
        end_point: Tensors,
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Return, (B,), the sum of `attributions` minus the displacement of the features along u.

        Parameters
        ----------
        attributions : Tensor (B, ...) or tuple of such
        start_point, end_point : Tensor (B, ...) or tuple of such
            The images, which define u, and their flip images.
        target, additional_forward_args
            Same as for :meth:`attribute`.
        """
        parts = as_tuple("attributions", attributions)
        start, end = as_tuple("start_point", start_point), as_tuple("end_point", end_point)
        more = as_arguments(additional_forward_args)
        targets = target_rows(target, len(start[0]), start[0].device)
        unit = flip_direction(self.space, start, more, targets).unit
        along = self._along(len(start))
        with torch.no_grad():
            displacement = along(*end, unit, *more) - along(*start, unit, *more)
        total: Tensor = torch.stack([a.flatten(1).sum(dim=1) for a in parts]).sum(dim=0)
        delta: Tensor = total - displacement
        return delta


def _short(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
