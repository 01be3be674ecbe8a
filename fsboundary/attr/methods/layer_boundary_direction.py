"""Attribution of a layer's units by how much they move the features towards the boundary."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from captum.attr import LayerAttribution, LayerGradientXActivation
from captum.log import log_usage
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import Inputs, Target, iterate_batches, unpack_arguments
from fsboundary.attr.methods.flip_direction import flip_direction, warn_zero_attributions
from fsboundary.core.checks import check_choice
from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.models.calling import hooks_alone
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of

_FLAT = "the layer does not move the features along the direction to the flip point"


@final
class LayerBoundaryDirection(LayerAttribution):  # type: ignore[misc]  # Captum has no types
    """The unit direction to the flip point, propagated back to a layer.

    With u that direction in feature space, held fixed, and f the features, the attribution is the
    gradient of ``u . f`` with respect to the layer. At the input of the head it is u itself, and
    its squares are the fractions of the squared distance due to each feature, which sum to 1.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        A classifier in eval mode.
    layer : nn.Module
        Layer of the model, before the head or the head itself; for the head, attribute to its
        input. For another layer the direction is propagated back through the layers between.
    kind : "direction" or "fraction"
        The gradient, or its squares divided by their sum over the layer.

    Raises
    ------
    ArgumentError
        Unknown kind.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> method = fsb.attr.LayerBoundaryDirection(space, demo.model.pool)
    >>> method.attribute(images).shape
    torch.Size([2, 64, 1, 1])
    """

    def __init__(
        self,
        model: nn.Module | FeatureSpace,
        layer: nn.Module,
        kind: Literal["direction", "fraction"] = "direction",
    ) -> None:
        check_choice("kind", kind, ("direction", "fraction"))
        self.space = space_of(model)
        super().__init__(self.space.logits, layer)
        self.kind = kind

    @log_usage()  # type: ignore[untyped-decorator]  # Captum has no types
    @in_standard_modes
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the attributions of the layer's output, or of its input.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), or tuple of such
            Inputs of the model; token ids and other integers too.
        target : int, list of int, Tensor or None
            Class to reach; None for the nearest. If it is the example's own class, the direction is
            straight away from the nearest flip point.
        additional_forward_args : object, optional
            Arguments of the model after the inputs; tensors of B rows are split with the rows.
        attribute_to_layer_input : bool
            Whether to attribute to the layer's input instead of its output.
        internal_batch_size : int, optional
            Number of rows per batch.
        show_progress : bool

        Returns
        -------
        Tensor (B, ...) or tuple of such
            Attributions shaped like the layer's output or input. Zeros with a warning where the
            example is on the boundary or the layer has no effect; NaN with a warning where there is
            no flip point.

        Raises
        ------
        ArgumentError
            Wrong types, shapes or classes, or a layer that the features do not depend on.
        """
        parts, more, targets = unpack_arguments(inputs, additional_forward_args, target, ids=True)
        rows = len(parts[0])
        if rows == 0:
            fix = "pass some: without examples the shape of the layer is unknown"
            raise ArgumentError("inputs", "no examples", "at least one", fix)
        done: list[tuple[Tensor, ...]] = []
        several = False
        for batch, args, (batch_targets,) in iterate_batches(
            rows, internal_batch_size, show_progress, parts, more, (targets,)
        ):
            direction = flip_direction(self.space, batch, args, batch_targets)
            gradient = self._gradient(batch, args, direction.unit, attribute_to_layer_input)
            several = isinstance(gradient, tuple)
            pieces = gradient if isinstance(gradient, tuple) else (gradient,)
            distance = direction.distance
            warn_zero_attributions(pieces, torch.isfinite(distance) & (distance > 0), _FLAT)
            done.append(_squared_fractions(pieces) if self.kind == "fraction" else pieces)
        out = tuple(torch.cat(pieces) for pieces in zip(*done, strict=True))
        return out if several else out[0]

    def _gradient(
        self, inputs: tuple[Tensor, ...], more: tuple[Any, ...], unit: Tensor, to_input: bool
    ) -> Tensor | tuple[Tensor, ...]:
        def along(*values: Any) -> Tensor:
            features = self.space.features(*values)
            return (features * unit.to(features)).sum(dim=1)

        leaves = tuple(x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs)
        method = LayerGradientXActivation(along, self.layer, multiply_by_inputs=False)
        try:
            with hooks_alone(self.space.model):
                gradient: Tensor | tuple[Tensor, ...] = method.attribute(
                    leaves, additional_forward_args=more, attribute_to_layer_input=to_input
                )
        except RuntimeError as error:
            if "not have been used in the graph" not in str(error):
                raise
            side = "input" if to_input else "output"
            got = f"a {type(self.layer).__name__} whose {side} the features do not depend on"
            wanted = "a layer before the head, or the head's input"
            fix = "for the head itself, pass attribute_to_layer_input=True"
            raise ArgumentError("layer", got, wanted, fix) from error
        return gradient


def _squared_fractions(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the squares of `parts` (B,...) divided by their sum in each row; 0 where it is 0."""
    squares = [p.double().square() for p in parts]
    total = torch.stack([s.flatten(1).sum(dim=1) for s in squares]).sum(dim=0)
    total = torch.where(total == 0, 1.0, total)
    return tuple((s / unsqueeze_like(total, s)).to(p) for s, p in zip(squares, parts, strict=True))
