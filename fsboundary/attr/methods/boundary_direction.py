"""Which pixels move the features towards the boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final

import torch
from captum.attr import GradientAttribution, IntegratedGradients
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import (
    Target,
    Tensors,
    as_tuple,
    extra,
    like,
    opened,
    parts_of,
    target_rows,
)
from fsboundary.attr.methods.flip_baselines import (
    Finder,
    check_finder,
    finder_of,
    flips_of,
    given_flips,
)
from fsboundary.attr.methods.flip_direction import (
    Aim,
    aim,
    aim_from,
    pulled_back,
    warn_of_zeros,
    watched_features,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import over_rows
from fsboundary.pixels.checks import check_bounds
from fsboundary.space import FeatureSpace, space_of

Kind = Literal["gradient", "times_input", "integrated"]
_FLAT = "the features do not react to these images along the direction to the flip point"


@final
class BoundaryDirection(GradientAttribution):  # type: ignore[misc]  # Captum has no types
    """How much each pixel moves the features along the unit direction to the flip point.

    With u that direction at the image, held fixed, and f the features, the attribution is the
    gradient of ``u . f`` with respect to the image: feature units a pixel unit. Positive: more of
    this pixel moves the image towards the target.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    kind : "gradient", "times_input" or "integrated"
        The gradient; the same times the image; or the mean gradient on the straight path from the
        image to its flip image, times the way. The last sums to how far the features move along u
        between both, feature units, up to the convergence delta.
    finder : callable, optional
        For "integrated": images (B,...) and classes to reach (B,) to flip images (B,...), NaN
        where none was found. :func:`fsboundary.pixels.flip_images` if left out.
    bounds : (float, float)
        What pixels lie between, in that search. An image that leaves them, as with noise, has a
        range of its own, wider on both sides by as many eighths as it needs.

    Raises
    ------
    ArgumentError
        Another kind, a finder that cannot be called, or bounds that are none.
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        kind: Kind = "gradient",
        finder: Finder | None = None,
        bounds: tuple[float, float] = (0, 1),
    ) -> None:
        if kind not in ("gradient", "times_input", "integrated"):
            wanted = '"gradient", "times_input" or "integrated"'
            raise ArgumentError("kind", repr(kind), wanted, "choose one of them")
        check_finder(finder)
        self.finder, self.bounds = finder, check_bounds(bounds)
        self.space = space_of(model)
        super().__init__(self.space.logits)
        self.kind = kind

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the attribution is multiplied by the image or the way to the flip image."""
        return self.kind != "gradient"

    def has_convergence_delta(self) -> bool:
        """Whether the attribution has a sum that it should come to: for "integrated"."""
        return self.kind == "integrated"

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    def attribute(
        self,
        inputs: Tensors,
        baselines: Tensors | None = None,
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
        inputs : Tensor (B, ...) or tuple of such
            Images, and further inputs of the model.
        baselines : Tensor (B, ...) or tuple of such, optional
            For "integrated" alone: the flip images, found by `finder` if left out.
        target : int, list of int, Tensor or None
            The class to reach; None for the nearest. Where it is the image's own, the direction is
            straight away from the nearest flip point, and the flip image the nearest.
        additional_forward_args : object, optional
            Passed to the model after the inputs; tensors of B rows go with their rows.
        n_steps, method
            Of the integral, as for ``captum.attr.IntegratedGradients``.
        internal_batch_size : int, optional
            Rows, or steps times rows, at once.
        return_convergence_delta : bool
            Return also, (B,), the sum of the attributions less what it should come to.
        show_progress : bool

        Returns
        -------
        Tensor or tuple of Tensor, or a pair of these and the deltas (B,)
            Zeros with a warning where the image is on the boundary or the features do not react;
            else NaN with a warning where no flip point or flip image was found.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes, baselines or a delta of a kind that has none, or a model
            without gradients.
        """
        parts, more, targets = opened(inputs, additional_forward_args, target)
        ends: tuple[Tensor, ...] = ()
        if self.kind == "integrated":
            ends = given_flips(parts, more, baselines, self.finder)
        elif baselines is not None:
            # a class in the place of Saliency's target would be taken for baselines
            wanted = f'none for kind="{self.kind}"'
            fix = 'pass the class as target=, or use kind="integrated"'
            raise ArgumentError("baselines", _short(baselines), wanted, fix)
        if return_convergence_delta and not self.has_convergence_delta():
            fix = 'use BoundaryDirection(model, kind="integrated")'
            raise ArgumentError("return_convergence_delta", "True", f"False for {self.kind}", fix)
        find = finder_of(self.space, self.finder, self.bounds)
        done: list[tuple[Tensor, ...]] = []
        cut = (parts, more, (targets,), ends)
        for here, args, (goal_class,), end in parts_of(
            len(parts[0]), internal_batch_size, show_progress, *cut
        ):
            if self.kind == "integrated":
                goal = aim_from(self.space, here, args, goal_class)
                flips = flips_of(self.space, here, args, goal, end, find)
                # Captum takes no fewer rows at once than there are
                size = internal_batch_size and max(internal_batch_size, len(here[0]))
                found = self._integrated(here, args, goal, flips, (n_steps, method, size))
                moved = found[:-1]
            else:
                leaves, features = watched_features(self.space, here, args)
                goal = aim(self.space.head, features, goal_class)
                moved = pulled_back(features, leaves, goal.unit)
                maps = moved
                if self.kind == "times_input":
                    maps = tuple(g * x.detach() for g, x in zip(moved, here, strict=True))
                found = (*maps, goal.unit.new_zeros(len(here[0])))
            warn_of_zeros(moved, torch.isfinite(goal.distance) & (goal.distance > 0), _FLAT)
            done.append(found)
        *attributions, delta = (torch.cat(pieces) for pieces in zip(*done, strict=True))
        out = like(inputs, tuple(attributions))
        return (out, delta) if return_convergence_delta else out

    def _along(self, count: int) -> Callable[..., Tensor]:
        """Return the function ``u . f`` of `count` inputs, u and further arguments: (B,)."""

        def along(*values: Any) -> Tensor:
            features = self.space.features(*values[:count], *values[count + 1 :])
            out: Tensor = (features * values[count].to(features)).sum(dim=1)
            return out

        return along

    def _integrated(
        self,
        inputs: tuple[Tensor, ...],
        more: tuple[Any, ...],
        goal: Aim,
        flips: tuple[Tensor, ...],
        integral: tuple[int, str, int | None],
    ) -> tuple[Tensor, ...]:
        """Return the attributions and the delta (B,)."""
        n_steps, method, size = integral
        if not len(inputs[0]):  # Captum takes no empty batch
            return (*(x.detach() for x in inputs), goal.distance)
        lost = torch.isnan(flips[0]).flatten(1).any(dim=1)
        starts = tuple(x.detach() for x in inputs)
        # the path of a row without a flip image is a point, and is blanked afterwards
        ends = tuple(
            torch.where(torch.isnan(e), x, e).requires_grad_()
            for e, x in zip(flips, starts, strict=True)
        )
        found, delta = IntegratedGradients(self._along(len(inputs))).attribute(
            ends,
            baselines=starts,
            additional_forward_args=(goal.unit, *more),
            n_steps=n_steps,
            method=method,
            internal_batch_size=size,
            return_convergence_delta=True,
        )
        blank = [x.masked_fill(over_rows(lost, x), torch.nan) for x in found]
        return (*(x.detach() for x in blank), delta.detach().masked_fill(lost, torch.nan))

    def compute_convergence_delta(
        self,
        attributions: Tensors,
        start_point: Tensors,
        end_point: Tensors,
        target: Target = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Return, (B,), the sum of `attributions` less how far the features move along u.

        Parameters
        ----------
        attributions : Tensor (B, ...) or tuple of such
        start_point, end_point : Tensor (B, ...) or tuple of such
            The images, where u is taken, and their flip images.
        target, additional_forward_args
            As for :meth:`attribute`.
        """
        parts = as_tuple("attributions", attributions)
        start, end = as_tuple("start_point", start_point), as_tuple("end_point", end_point)
        more = extra(additional_forward_args)
        targets = target_rows(target, len(start[0]), start[0].device)
        goal = aim_from(self.space, start, more, targets)
        along = self._along(len(start))
        with torch.no_grad():
            way = along(*end, goal.unit, *more) - along(*start, goal.unit, *more)
        total: Tensor = torch.stack([a.flatten(1).sum(dim=1) for a in parts]).sum(dim=0)
        delta: Tensor = total - way
        return delta


def _short(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
