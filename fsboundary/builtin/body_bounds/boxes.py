"""Interval bounds of every value of a body, from pixels to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from fsboundary.builtin.body_bounds.body import Affine, Body, MaxPool, Node
from fsboundary.core.tolerance import EPS
from fsboundary.geometry.bounds.pixel_sets import PixelSets
from fsboundary.geometry.bounds.relaxations import range_of
from fsboundary.geometry.bounds.rounding import inflate, sum_error


@final
@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """Limits of one value of the body for B sets of images.

    Attributes
    ----------
    low, high : Tensor (B, ...), float64
    size : Tensor (B, ...), float64
        Upper bound of the sum of the absolute terms of the operation that made the value.
    """

    low: Tensor
    high: Tensor
    size: Tensor

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value, (B, ...)."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def intersect(self, low: Tensor, high: Tensor) -> Box:
        """Return the part within other limits, which must be proved too."""
        return Box(torch.maximum(self.low, low), torch.minimum(self.high, high), self.size)


def input_box(sets: PixelSets) -> Box:
    """Return the limits of the pixels."""
    low, high = sets.box()
    return Box(low, high, torch.maximum(low.abs(), high.abs()))


def box_of(node: Node, parents: list[Box]) -> Box:
    """Return the limits of a value from those of its operands."""
    rule = node.rule
    if isinstance(rule, Affine):
        return _affine_box(rule, parents)
    [x] = parents
    if isinstance(rule, MaxPool):
        low, high = (windows(rule, v, node.shape).amax(dim=2) for v in (x.low, x.high))
        size = windows(rule, x.magnitude, node.shape).amax(dim=2)
        return Box(*(v.reshape(-1, *node.shape) for v in (low, high, size)))
    assert rule is not None  # only the images have none
    low, high = range_of(rule, x.low, x.high)
    return Box(low, high, torch.maximum(low.abs(), high.abs()))


def boxes_of(body: Body, sets: PixelSets) -> list[Box]:
    """Return the limits of every value of a body."""
    boxes = [input_box(sets)]
    for node in body.nodes[1:]:
        boxes.append(box_of(node, [boxes[p] for p in node.parents]))
    return boxes


def _affine_box(rule: Affine, parents: list[Box]) -> Box:
    size = rule.absolute(*(b.magnitude for b in parents))
    if rule.offset_size is not None:
        size = size + rule.offset_size
    size = inflate(size)
    if rule.linear is rule.absolute:  # no weight is negative, so limits go to limits
        low, high = rule.linear(*(b.low for b in parents)), rule.linear(*(b.high for b in parents))
        error = sum_error(rule.terms, size) if rule.terms > 1 else torch.zeros_like(size)
    else:
        centers = [b.low / 2 + b.high / 2 for b in parents]
        reaches = [
            torch.maximum(b.high - c, c - b.low) * (1 + 4 * EPS)
            for b, c in zip(parents, centers, strict=True)
        ]
        middle, reach = rule.linear(*centers), rule.absolute(*reaches)
        if rule.offset is not None:
            middle = middle + rule.offset
        low, high = middle - reach, middle + reach
        # the absolute terms of middle and reach are together at most four times `size`
        error = sum_error(rule.terms + 4, 4 * size)
    if rule.offset is not None and rule.linear is rule.absolute:
        low, high = low + rule.offset, high + rule.offset
        error = error + sum_error(2, size)
    # NaN stands where an infinite limit was multiplied by 0
    low = (low - error).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return Box(low, (high + error).nan_to_num(torch.inf, torch.inf, -torch.inf), size)


def windows(rule: MaxPool, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the numbers (N,C,P,L) of each of L windows, padded with -inf.

    Parameters
    ----------
    rule : MaxPool
    x : Tensor (N, C, H, W)
    shape : tuple of int
        Shape (C,Ho,Wo) of the result of one row, which has L windows per channel.
    """
    padded = pad_windows(rule, x, shape)
    flat = padded.reshape(-1, 1, *padded.shape[-2:])
    parts = functional.unfold(flat, rule.kernel, rule.dilation, 0, rule.stride)
    return parts.reshape(len(x), shape[0], rule.kernel[0] * rule.kernel[1], -1)


def pad_windows(rule: MaxPool, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return `x` padded, or cut, to what the windows of a result of that shape cover."""
    pads = []
    for axis in (1, 0):
        reach = (shape[1 + axis] - 1) * rule.stride[axis]
        reach += rule.dilation[axis] * (rule.kernel[axis] - 1) + 1
        pads += [rule.padding[axis], reach - x.shape[2 + axis] - rule.padding[axis]]
    return functional.pad(x, pads, value=-torch.inf)
