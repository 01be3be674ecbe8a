"""Rounding of a forward pass: how far computed logits may be from those of exact arithmetic.

The traced pass is followed from the pixels to the logits. A value that the model computes is off by

- what its operands are off by, times the absolute weights of an affine operation, or times the
  largest slope of an activation;
- and by its own rounding: gamma_n of the pass's dtype times the sum of the absolute terms for sums
  of products, in whatever order they are added (``geometry/bounds/rounding.py``), and
  ``Activation.error`` for activations.

Magnitudes are those of intervals of the pixels. Underflow, gradual or not, adds the smallest normal
number per term; where a sum might overflow, nothing is claimed.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import Affine, Body, MaxPool, Node, refuse, trace_body
from fsboundary.builtin.body_bounds.boxes import Box, box_of, boxes_of, windows
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.protocols import ModelView
from fsboundary.core.rows import device_of
from fsboundary.geometry.bounds.pixel_sets import PixelSets
from fsboundary.geometry.bounds.relaxations import Activation
from fsboundary.geometry.bounds.rounding import inflate, pass_error, sum_error
from fsboundary.modes import has_direct_convolutions, has_ieee_products

_DTYPES = (torch.float32, torch.float64)
_CONVERSIONS = 2
"""Roundings of the constants of an operation to the dtype of the pass, besides those of a rule."""

_RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "squeeze", "alias", "detach", "clone"})
"""Operations that keep the numbers of a row and their order."""


@final
class ForwardRounding:
    """Bounds of the rounding of a model's passes on the CPU.

    Parameters
    ----------
    view : ModelView
    images : Tensor (B, C, H, W)
        Some images, at least one, for the trace.

    Raises
    ------
    HeadError
        An operation has no rule, computes in another dtype, or its library is not known to add
        products in float32.
    """

    def __init__(self, view: ModelView, images: Tensor) -> None:
        device = device_of(getattr(view, "model", None), images.device)
        if device.type != "cpu":
            refuse(f"the rounding of passes on {device.type} is not covered, only on the CPU")
        body = trace_body(view, images, rule_of)
        self._whole = trace_body(view, images, rule_of, "logits")
        self._features = _position_of(body, self._whole)
        for node in self._whole.nodes:
            _require_known_rounding(node, [self._whole.nodes[p].shape for p in node.parents])
        self._head_error, self._bias_error = _head_errors(
            self._whole, self._features, view.head.weight.cpu(), view.head.bias.cpu()
        )

    def logit_errors(
        self,
        images: Tensor,
        radius: Tensor,
        norm: Literal["l2", "linf"],
        bounds: tuple[float, float],
    ) -> Tensor:
        """Return bounds (B,K), float64, of what logits differ by from ``W z + b``, on the sets.

        The sets are those of :class:`BodyBounds`; z are the features in exact arithmetic.
        """
        sets = PixelSets(images.to("cpu", torch.float64), radius.cpu(), norm, bounds)
        boxes = boxes_of(self._whole, sets)
        errors = [torch.full_like(boxes[0].low, torch.finfo(torch.float32).tiny)]
        for node, box in zip(self._whole.nodes[1:], boxes[1:], strict=True):
            error = self._error(node, box, boxes, errors)
            errors.append(error.nan_to_num(torch.inf, torch.inf, torch.inf))
        features = boxes[self._features].magnitude.flatten(1)
        head = features @ self._head_error.T + self._bias_error
        total = inflate(errors[-1].flatten(1) + inflate(head))
        return total.nan_to_num(torch.inf, torch.inf, torch.inf).to(images.device)

    def _error(self, node: Node, box: Box, boxes: list[Box], errors: list[Tensor]) -> Tensor:
        """Return by how much the computed values (B,...) of a node may be off."""
        given = [errors[p] for p in node.parents]
        tiny = torch.finfo(node.dtype).tiny
        if isinstance(node.rule, MaxPool):
            return windows(node.rule, given[0], node.shape).amax(dim=2).reshape_as(box.low)
        if isinstance(node.rule, Activation):
            x = boxes[node.parents[0]].magnitude + given[0]
            moved = node.rule.steepest * given[0] + node.rule.slack
            return inflate(moved + node.rule.error(x, box.magnitude + moved, node.dtype))
        assert isinstance(node.rule, Affine)
        moved = inflate(node.rule.absolute(*given))
        moved = moved + sum_error(node.rule.terms, moved)
        if self._is_exact(node):
            return moved
        terms = node.rule.terms + _CONVERSIONS
        # subnormal weights, factors and products may be taken for 0
        largest = torch.stack(
            [(boxes[p].magnitude + errors[p]).flatten(1).amax(dim=1) for p in node.parents]
        ).amax(dim=0)
        lost = terms * tiny * (1 + largest).reshape(-1, *[1] * len(node.shape))
        return inflate(moved + pass_error(terms, box.size + moved, node.dtype) + lost)

    def _is_exact(self, node: Node) -> bool:
        """Return whether an operation only moves numbers, in their dtype."""
        rule = node.rule
        return (
            isinstance(rule, Affine)
            and rule.linear is rule.absolute
            and rule.terms <= 1
            and rule.offset is None
            and all(self._whole.nodes[p].dtype == node.dtype for p in node.parents)
        )


def _position_of(body: Body, whole: Body) -> int:
    """Return the position of the features, up to their shape, in the graph of the logits."""
    last = position = len(body.nodes) - 1
    while not whole.begins_with(body, without=last - position):
        node = body.nodes[position]
        if node.name not in _RESHAPES or node.parents != (position - 1,):
            refuse("the pass to the features is no part of that to the logits")
        position -= 1
    for number in range(position + 1, len(whole.nodes)):
        node = whole.nodes[number]
        if not isinstance(node.rule, Affine) or min(node.parents) < position:
            refuse(f"the operation {node.name!r} after the features is not linear in them")
    return position


def _require_known_rounding(node: Node, shapes: list[tuple[int, ...]]) -> None:
    """Refuse operations whose rounding is not that of sums of products in a known dtype."""
    if node.dtype not in _DTYPES:
        refuse(f"the operation {node.name!r} computes in {node.dtype}, whose rounding has no rule")
    cpu = torch.device("cpu")
    if node.dtype == torch.float32:  # others have no settings
        if node.name == "convolution" and not has_direct_convolutions(cpu):
            refuse("convolutions of float32 are no sums of products with torch's settings here")
        if node.name in ("mm", "addmm") and not has_ieee_products(cpu):
            refuse("products of float32 are rounded to fewer digits with torch's settings here")
    largest = torch.finfo(node.dtype).max
    if isinstance(node.rule, Affine):
        # a factor may be infinite in this dtype, or the reciprocal of a number that is taken for 0
        sums = node.rule.absolute(*(torch.ones(1, *s, dtype=torch.float64) for s in shapes))
        if not bool((sums < largest / 4).all()):
            refuse(f"the operation {node.name!r} has factors that are too large for {node.dtype}")
    exponent = node.rule.largest_exponent if isinstance(node.rule, Activation) else 0.0
    if exponent > 0.99 * math.log(largest):
        refuse(f"the operation {node.name!r} may overflow in {node.dtype}")


def _head_errors(whole: Body, features: int, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds (K,d) and (K,) by which the traced operations differ from ``W z + b``.

    They are run on 0 and on each unit vector, with limits of their rounding.
    """
    shape = whole.nodes[features].shape
    unit = torch.cat([torch.zeros(1, weight.shape[1]), torch.eye(weight.shape[1])])
    unit = unit.to(torch.float64).reshape(-1, *shape)
    boxes = {features: Box(unit, unit, unit)}
    for number in range(features + 1, len(whole.nodes)):
        node = whole.nodes[number]
        boxes[number] = box_of(node, [boxes[p] for p in node.parents])
    out = boxes[len(whole.nodes) - 1]
    low, high, size = out.low.flatten(1), out.high.flatten(1), out.magnitude.flatten(1)
    column = weight.T
    off = torch.maximum(high[1:] - low[:1] - column, column - low[1:] + high[:1])
    off = off + sum_error(3, size[1:] + size[:1] + column.abs())
    constant = torch.maximum(high[0] - bias, bias - low[0]) + sum_error(2, size[0] + bias.abs())
    return inflate(off.T), inflate(constant)
