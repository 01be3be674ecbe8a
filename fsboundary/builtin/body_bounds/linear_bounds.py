"""Body bounds "linear_bounds": linear functions of the pixels below functions of the features.

A linear function of the features is followed back through the body (CROWN: Zhang et al., "Efficient
neural network robustness certification with general activation functions", NeurIPS 2018). Affine
operations are transposed; at a nonlinear one a term with a positive coefficient is replaced by a
line below, one with a negative coefficient by a line above. What is left is linear in the pixels,
and its minimum over a ball is known. The lines need limits of each argument, which are computed in
the same way, argument by argument, or by intervals where there are too many.

Rounding: a coefficient is a sum of products, so it is wrong by at most gamma_n times the same sum
of absolute values, and what it multiplies is at most the magnitude of the value there. The sum over
all coefficients of one operation is therefore at most gamma_n times ``|a|`` times the sum of the
absolute terms of that operation, which the intervals give.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import (
    Affine,
    Body,
    MaxPool,
    Node,
    Window,
    trace_body,
)
from fsboundary.builtin.body_bounds.boxes import (
    Box,
    box_of,
    input_box,
    windows,
)
from fsboundary.builtin.body_bounds.interval import weight_slack
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.checks import check_choice, check_integers
from fsboundary.core.protocols import ModelView
from fsboundary.core.tolerance import EPS
from fsboundary.geometry.bounds.pixel_sets import PixelSets
from fsboundary.geometry.bounds.relaxations import Activation, Lines, lines_of
from fsboundary.geometry.bounds.rounding import inflate, sum_error
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions

_ROOM = 2**22
"""Numbers of the coefficients of one operation that are in memory at a time, 32 MiB."""

_BLOCKS = 8
"""Blocks per side into which the places of an image are divided, to be bounded separately."""

_MIXING = frozenset({"convolution", "mm", "addmm", "avg_pool2d", "_adaptive_avg_pool2d", "mean"})
"""Operations after one of which intervals of the pixels are exact, and after two no longer."""


@final
class LinearBounds(BodyBounds):
    """Linear bounds of the functions in the pixels, followed back from the features.

    Bounds hold for the body in exact arithmetic; everything is rounded outward in float64.

    Parameters
    ----------
    intermediate : {"linear", "interval"}
        How the arguments of nonlinear operations are bounded: like the functions themselves, or by
        intervals, which is faster and looser.
    max_functions : int
        Number of arguments of one operation, per image, above which intervals are used anyway.
    """

    def __init__(
        self, intermediate: Literal["linear", "interval"] = "linear", max_functions: int = 4096
    ) -> None:
        check_choice("intermediate", intermediate, ("linear", "interval"))
        check_integers(self, max_functions=max_functions)
        self._intermediate, self._max_functions = intermediate, max_functions

    def bound(
        self,
        view: ModelView,
        images: Tensor,
        radius: Tensor,
        *,
        norm: Literal["l2", "linf"],
        bounds: tuple[float, float],
        functions: LinearFunctions,
    ) -> Tensor:
        """Return lower bounds (B,F) of `functions`; see :class:`BodyBounds`."""
        body = trace_body(view, images, rule_of)
        sets = PixelSets(images.to("cpu", torch.float64), radius.cpu(), norm, bounds)
        pull = _Pull(body, sets)
        for position in range(1, len(body.nodes)):
            pull.add_box(position)
            if self._intermediate == "linear":
                self._refine(pull, position)
        last = len(body.nodes) - 1
        weight, offset = functions.weight.cpu(), functions.offset.cpu()
        lowest = pull.minimum(last, weight) + offset
        lowest = lowest - sum_error(2, lowest.abs() + 2 * offset.abs())
        lowest = lowest - weight_slack(functions, pull.boxes[last].magnitude.flatten(1))
        return lowest.nan_to_num(-torch.inf, torch.inf, -torch.inf).to(images.device)

    def _refine(self, pull: _Pull, position: int) -> None:
        """Replace the limits of a value by linear bounds, where a nonlinear operation reads it."""
        readers = [
            node.rule for node in pull.body.nodes
            if position in node.parents and not isinstance(node.rule, Affine)
        ]  # fmt: skip
        if not readers or pull.is_exact(position):
            return
        box = pull.boxes[position]
        low, high = box.low.flatten(1), box.high.flatten(1)
        wanted = torch.zeros_like(low, dtype=torch.bool)
        for rule in readers:
            wanted |= _is_bent(rule, low, high)
        count = int(wanted.sum(dim=1).amax())
        if not 0 < count <= self._max_functions:
            return
        found_low, found_high = pull.limits(position, wanted)
        pull.boxes[position] = box.intersect(
            found_low.reshape(box.low.shape), found_high.reshape(box.low.shape)
        )

    def __repr__(self) -> str:
        return (
            f"LinearBounds(intermediate={self._intermediate!r}, "
            f"max_functions={self._max_functions})"
        )


def _is_bent(rule: object, low: Tensor, high: Tensor) -> Tensor:
    """Return which arguments are in an interval where a nonlinear operation is not a line."""
    if isinstance(rule, Activation) and not rule.curvature:
        knots = [(low < k) & (high > k) for k in rule.knots]
        return torch.stack(knots).any(dim=0)
    return torch.ones_like(low, dtype=torch.bool)


class _Part(NamedTuple):
    """Coefficients (B,F,...) of a value; with a window (B,F,C,h,w), and 0 outside of it."""

    values: Tensor
    window: Window | None


@final
class _Pull:
    """Linear functions of a value, followed back to the pixels.

    Attributes
    ----------
    boxes : list of Box
        Limits of the values so far.
    width : int
        Numbers of the widest value of one row.
    """

    def __init__(self, body: Body, sets: PixelSets) -> None:
        self.body, self._sets = body, sets
        self.boxes: list[Box] = [input_box(sets)]
        self._lines: dict[int, Lines] = {}
        self._pools: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.width = max(math.prod(node.shape) for node in body.nodes)

    def add_box(self, position: int) -> None:
        """Add the limits of the next value, from those of its operands."""
        node = self.body.nodes[position]
        self.boxes.append(box_of(node, [self.boxes[p] for p in node.parents]))

    def is_exact(self, position: int) -> bool:
        """Return whether intervals of the pixels give the exact limits of a value."""
        if self._sets.norm != "linf":
            return False
        mixing = 0
        while position:
            node = self.body.nodes[position]
            if not isinstance(node.rule, Affine) or len(node.parents) != 1:
                return False
            mixing += node.name in _MIXING
            [position] = node.parents
        return mixing <= 1

    def limits(self, position: int, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return limits (B,n) of the numbers of a value; infinite where not `wanted` (B,n)."""
        rows, shape = len(wanted), self.body.nodes[position].shape
        low = torch.full(wanted.shape, -torch.inf, dtype=torch.float64)
        high = -low
        some = wanted.any(dim=0)
        numbers = torch.arange(len(some))
        groups: list[tuple[Tensor, Window | None]] = []
        if len(shape) == 3:
            # functions of one place have few coefficients, in a window
            block = -(-max(shape[1:]) // _BLOCKS)
            place = numbers.reshape(shape)
            groups += [
                (place[:, t : t + block, s : s + block], Window(t, s))
                for t in range(0, shape[1], block)
                for s in range(0, shape[2], block)
            ]
        else:
            groups.append((numbers, None))
        for members, window in groups:
            flat = members.flatten()
            kept = some[flat].nonzero()[:, 0]
            room = max(1, _ROOM // (2 * rows * self._width_of(members.shape, window)))
            for part in kept.split(room) if len(kept) else ():
                a = torch.zeros(2 * len(part), len(flat), dtype=torch.float64)
                order = torch.arange(len(part))
                a[order, part], a[order + len(part), part] = 1.0, -1.0
                a = a.reshape(1, len(a), *members.shape).expand(rows, *[-1] * (members.dim() + 1))
                found = self._minimum(position, _Part(a, window), tight=False)
                found = found.nan_to_num(-torch.inf, torch.inf, -torch.inf)
                low[:, flat[part]] = found[:, : len(part)]
                high[:, flat[part]] = -found[:, len(part) :]
        return low, high

    def _width_of(self, shape: tuple[int, ...], window: Window | None) -> int:
        """Return how many coefficients a function needs in memory."""
        return self.width if window is None else min(self.width, 16 * math.prod(shape))

    def minimum(self, position: int, a: Tensor) -> Tensor:
        """Return lower bounds (B,F) of functions with coefficients `a` (B,F,n) of a value."""
        shape = self.body.nodes[position].shape
        return self._minimum(position, _Part(a.reshape(*a.shape[:2], *shape), None), tight=True)

    def _minimum(self, position: int, part: _Part, *, tight: bool) -> Tensor:
        rows, count = part.values.shape[:2]
        parts = {position: part}
        value = torch.zeros(rows, count, dtype=torch.float64)
        error = torch.zeros_like(value)
        for number in range(position, 0, -1):
            if number not in parts:
                continue
            given, node = parts.pop(number), self.body.nodes[number]
            step, dot, terms, found = self._step(number, node, given)
            value = value + step
            # numbers that several operations read are sums of that many parts
            terms += max(self.body.uses[p] for p in node.parents)
            terms += given.values[0, 0].numel()
            error = error + sum_error(terms, dot) + EPS * value.abs()
            for parent, new in zip(node.parents, found, strict=True):
                parts[parent] = self._sum(parent, parts.get(parent), new)
        if 0 in parts:
            whole = self._whole(0, parts[0]).values.flatten(2)
            value = value + self._sets.minimum(whole, tight=tight)
        return value - inflate(error + 2 * EPS * value.abs())

    def _sum(self, number: int, one: _Part | None, other: _Part) -> _Part:
        if one is None:
            return other
        if one.window != other.window or one.values.shape != other.values.shape:
            one, other = self._whole(number, one), self._whole(number, other)
        return _Part(one.values + other.values, one.window)

    def _whole(self, number: int, part: _Part) -> _Part:
        """Return coefficients without a window."""
        if part.window is None:
            return part
        top, left = part.window
        height, width = part.values.shape[-2:]
        whole = torch.zeros(
            *part.values.shape[:2], *self.body.nodes[number].shape, dtype=torch.float64
        )
        whole[..., top : top + height, left : left + width] = part.values
        return _Part(whole, None)

    def _cut(self, values: Tensor, number: int, part: _Part) -> Tensor:
        """Return what belongs to `part` of numbers (B,n) of a value, as columns (B,m,1)."""
        if part.window is not None:
            top, left = part.window
            height, width = part.values.shape[-2:]
            values = values.reshape(len(values), *self.body.nodes[number].shape)
            values = values[..., top : top + height, left : left + width]
        return values.flatten(1)[..., None]

    def _step(
        self, number: int, node: Node, part: _Part
    ) -> tuple[Tensor | float, Tensor, int, list[_Part]]:
        """Return a constant (B,F), a size of errors (B,F), roundings, and parts of the parents."""
        box = self.boxes[number]
        if isinstance(node.rule, MaxPool):
            part = self._whole(number, part)
        a = part.values.flatten(2)
        if isinstance(node.rule, Affine):
            step: Tensor | float = 0.0
            if node.rule.offset is not None:
                step = (a @ self._cut(node.rule.offset[None], number, part))[..., 0]
            dot = (a.abs() @ self._cut(box.size, number, part))[..., 0]
            return step, dot, node.rule.terms, self._transpose(number, node, node.rule, part)
        [parent] = node.parents
        x = self.boxes[parent]
        positive, negative = a.clamp_min(0), a.clamp_max(0)
        if isinstance(node.rule, MaxPool):
            low_index, high_index, high_constant = self._pool(number, node, x)
            width = x.low[0].numel()
            new = _scatter(positive, low_index, width) + _scatter(negative, high_index, width)
            step = (negative @ high_constant[..., None])[..., 0]
            dot = (a.abs() @ (box.size.flatten(1) + high_constant.abs())[..., None])[..., 0]
            shaped = new.reshape(*a.shape[:2], *self.body.nodes[parent].shape)
            return step, dot, math.prod(node.rule.kernel) + 1, [_Part(shaped, None)]
        lines = self._line(number, node, x)
        low_slope, low_offset, high_slope, high_offset = (
            self._cut(field, number, part) for field in lines
        )
        new = positive * low_slope.mT + negative * high_slope.mT
        step = (positive @ low_offset + negative @ high_offset)[..., 0]
        size = torch.maximum(low_slope.abs(), high_slope.abs())
        size = size * self._cut(x.magnitude, number, part)
        size = size + torch.maximum(low_offset.abs(), high_offset.abs())
        dot = (a.abs() @ size)[..., 0]
        return step, dot, 4, [_Part(new.reshape(part.values.shape), part.window)]

    def _transpose(self, number: int, node: Node, rule: Affine, part: _Part) -> list[_Part]:
        """Return the coefficients of the parents of an affine map."""
        rows, count = part.values.shape[:2]
        if part.window is not None and rule.pull_window is not None:
            found, window = rule.pull_window(part.values.flatten(0, 1), part.window)
            return [_Part(f.reshape(rows, count, *f.shape[1:]), window) for f in found]
        flat = self._whole(number, part).values.flatten(0, 1)
        if rule.pull is not None:
            found = rule.pull(flat)
        else:
            shapes = [self.body.nodes[p].shape for p in node.parents]
            with torch.enable_grad():
                zeros = [
                    torch.zeros(len(flat), *s, dtype=torch.float64, requires_grad=True)
                    for s in shapes
                ]
                found = list(torch.autograd.grad(rule.linear(*zeros), zeros, flat))
        return [_Part(f.reshape(rows, count, *f.shape[1:]), None) for f in found]

    def _line(self, number: int, node: Node, x: Box) -> Lines:
        """Return the lines (B,n) of an activation; its argument is not refined any more."""
        if number not in self._lines:
            assert isinstance(node.rule, Activation)
            lines = lines_of(node.rule, x.low.flatten(1), x.high.flatten(1))
            self._lines[number] = lines
        return self._lines[number]

    def _pool(self, number: int, node: Node, x: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Return lines of maxima: positions (B,n) below and above, and constants above.

        Every number of a window is below its maximum; the one with the largest lower limit is
        taken. If that limit exceeds all other upper limits, the number is the maximum; else the
        largest upper limit is above it, and the position is -1.
        """
        if number not in self._pools:
            rule = node.rule
            assert isinstance(rule, MaxPool)
            low, high = windows(rule, x.low, node.shape), windows(rule, x.high, node.shape)
            best = low.argmax(dim=2, keepdim=True)
            others = high.scatter(2, best, -torch.inf).amax(dim=2)
            is_largest = low.gather(2, best)[:, :, 0] >= others
            numbers = torch.arange(x.low[0].numel(), dtype=torch.float64)
            places = windows(rule, numbers.reshape(1, *x.low.shape[1:]), node.shape)
            places = places.expand_as(low)
            index = places.gather(2, best)[:, :, 0].long().flatten(1)
            above = torch.where(is_largest.flatten(1), index, -1)
            constant = torch.where(is_largest, 0.0, high.amax(dim=2)).flatten(1)
            self._pools[number] = index, above, constant
        return self._pools[number]


def _scatter(a: Tensor, index: Tensor, width: int) -> Tensor:
    """Return coefficients (B,F,width) with `a` (B,F,n) added at `index` (B,n); -1 is left out."""
    kept = torch.where(index < 0, 0.0, 1.0)[:, None] * a
    place = index.clamp_min(0)[:, None].expand_as(a)
    return torch.zeros(*a.shape[:2], width, dtype=a.dtype).scatter_add_(2, place, kept)
