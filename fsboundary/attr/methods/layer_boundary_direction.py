"""Which units of a layer move the features towards the boundary."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from captum.attr import LayerAttribution, LayerGradientXActivation
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import Target, Tensors, opened, parts_of
from fsboundary.attr.methods.flip_direction import aim_from, warn_of_zeros
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import over_rows
from fsboundary.space import FeatureSpace, space_of

_FLAT = "the layer does not move the features along the direction to the flip point"


@final
class LayerBoundaryDirection(LayerAttribution):  # type: ignore[misc]  # Captum has no types
    """The unit direction to the flip point, seen at a layer.

    With u that direction in feature space, held fixed, and f the features, the attribution is the
    gradient of ``u . f`` with respect to the layer. At the input of the head it is u itself, and
    its squares are the shares of the features in the squared distance, which sum to 1.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    layer : nn.Module
        A layer of the model, before the head or the head itself; for the head, attribute to its
        input. For another layer the direction is pulled back through what lies between.
    kind : "direction" or "fraction"
        The gradient, or its squares divided by their sum over the layer.

    Raises
    ------
    ArgumentError
        Another kind.
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        layer: nn.Module,
        kind: Literal["direction", "fraction"] = "direction",
    ) -> None:
        if kind not in ("direction", "fraction"):
            fix = "choose one of the two"
            raise ArgumentError("kind", repr(kind), '"direction" or "fraction"', fix)
        self.space = space_of(model)
        super().__init__(self.space.logits, layer)
        self.kind = kind

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    def attribute(
        self,
        inputs: Tensors,
        target: Target = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensors:
        """Return the attributions of the layer's output, or of its input.

        Parameters
        ----------
        inputs : Tensor (B, ...) or tuple of such
            Images, and further inputs of the model.
        target : int, list of int, Tensor or None
            The class to reach; None for the nearest. Where it is the image's own, the direction is
            straight away from the nearest flip point.
        additional_forward_args : object, optional
            Passed to the model after the inputs; tensors of B rows go with their rows.
        attribute_to_layer_input : bool
            Of what goes into the layer instead of what comes out.
        internal_batch_size : int, optional
            Rows at once.
        show_progress : bool

        Returns
        -------
        Tensor (B, ...) or tuple of such
            As the layer's output or input. Zeros with a warning where the image is on the boundary
            or the layer has no effect; NaN with a warning where there is no flip point.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes, or a layer that the features do not depend on.
        """
        parts, more, targets = opened(inputs, additional_forward_args, target)
        rows = len(parts[0])
        if rows == 0:
            fix = "pass some: without one the shape of the layer is not known"
            raise ArgumentError("inputs", "no images", "at least one", fix)
        done: list[tuple[Tensor, ...]] = []
        several = False
        for here, args, (goal_class,) in parts_of(
            rows, internal_batch_size, show_progress, parts, more, (targets,)
        ):
            goal = aim_from(self.space, here, args, goal_class)
            found = self._gradient(here, args, goal.unit, attribute_to_layer_input)
            several = isinstance(found, tuple)
            pieces = found if isinstance(found, tuple) else (found,)
            warn_of_zeros(pieces, torch.isfinite(goal.distance) & (goal.distance > 0), _FLAT)
            done.append(_shares(pieces) if self.kind == "fraction" else pieces)
        out = tuple(torch.cat(pieces) for pieces in zip(*done, strict=True))
        return out if several else out[0]

    def _gradient(
        self, inputs: tuple[Tensor, ...], more: tuple[Any, ...], unit: Tensor, to_input: bool
    ) -> Tensors:
        def along(*values: Any) -> Tensor:
            features = self.space.features(*values)
            return (features * unit.to(features)).sum(dim=1)

        leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
        method = LayerGradientXActivation(along, self.layer, multiply_by_inputs=False)
        try:
            found: Tensors = method.attribute(
                leaves, additional_forward_args=more, attribute_to_layer_input=to_input
            )
        except RuntimeError as error:
            if "not have been used in the graph" not in str(error):
                raise
            raise ArgumentError(
                "layer",
                f"a {type(self.layer).__name__} whose {'input' if to_input else 'output'} the "
                "features do not depend on",
                "a layer before the head, or the head's input",
                "for the head itself, pass attribute_to_layer_input=True",
            ) from error
        return found


def _shares(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the squares of `parts` (B,...) divided by their sum in each row; 0 where it is 0."""
    squares = [p.double().square() for p in parts]
    total = torch.stack([s.flatten(1).sum(dim=1) for s in squares]).sum(dim=0)
    total = torch.where(total == 0, 1.0, total)
    return tuple((s / over_rows(total, s)).to(p) for s, p in zip(squares, parts, strict=True))
