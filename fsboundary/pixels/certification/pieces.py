"""Pieces of a segment of images on which a piecewise linear body is linear.

The values at the ends of pieces are followed through the operations of the body. Where the argument
of an activation passes a knot, or another number of a window becomes the largest, a piece is cut
there; values at the cut are those on the straight line between its ends, so each cut is exact to
rounding.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import Affine, Body, MaxPool, Node
from fsboundary.builtin.body_bounds.boxes import windows
from fsboundary.core.errors import HeadError
from fsboundary.geometry.bounds.relaxations import Activation

_ROOM = 2**24
"""Numbers of the values at the ends of pieces that are in memory at a time, 128 MiB."""

_SMALLEST_PART = 1e-6
"""Length of a part of the segment that is not halved for memory any more."""

_SLIVER = 1e-14
"""Cuts nearer to each other than this are one: operations that read the same numbers cut twice."""

_ROUNDING = 1e-12
"""Distance from a knot, relative to the largest argument, that counts as 0: more than the rounding
of sums of ten thousand terms. A kink that is missed changes a value by less."""


def require_piecewise_linear(body: Body) -> None:
    """Raise HeadError, by name, if an operation is not piecewise linear."""
    for node in body.nodes:
        if isinstance(node.rule, Activation) and node.rule.curvature:
            raise HeadError(
                f"classes on a segment: the operation {node.name!r} is not piecewise linear, so "
                "crossings cannot be computed, only sampled. Call pixels.morph, or extract images "
                "of the segment, and bisect"
            )


def evaluate(body: Body, images: Tensor, batch_size: int) -> Tensor:
    """Return the features (N,d) of `images` (N,C,H,W), float64, by the operations of `body`."""
    parts = []
    for batch in images.split(batch_size):
        values = {0: batch}
        for number, node in enumerate(body.nodes[1:], start=1):
            values[number] = _apply(node, [values[p] for p in node.parents])
            _forget(body, values, number)
        parts.append(values[len(body.nodes) - 1].flatten(1))
    return torch.cat(parts)


def ends_of_pieces(
    body: Body, start: Tensor, end: Tensor, limit: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Return the ends (P+1,) of the P pieces of a segment, in order; its own ends are among them.

    Parameters
    ----------
    body : Body
        Piecewise linear.
    start, end : Tensor (C, H, W), float64
    limit : int
        Number of pieces beyond which no more are looked for: what is returned is then longer.
    low, high : float
        Part of the segment.
    """
    pieces = _Pieces(body, start, end, low, high)
    if pieces.run():
        return pieces.t
    middle = low + (high - low) / 2
    first = ends_of_pieces(body, start, end, limit, low, middle)
    if len(first) - 1 > limit:
        return first
    rest = ends_of_pieces(body, start, end, limit - len(first) + 1, middle, high)
    return torch.cat([first, rest[1:]])


@final
class _Pieces:
    """Values at the ends of the pieces so far."""

    def __init__(self, body: Body, start: Tensor, end: Tensor, low: float, high: float) -> None:
        self._body = body
        self.t = torch.tensor([low, high], dtype=torch.float64)
        self._values = {0: torch.stack([torch.lerp(start, end, t) for t in (low, high)])}

    def run(self) -> bool:
        """Follow the pieces to the features; return False if they need too much memory."""
        for number, node in enumerate(self._body.nodes[1:], start=1):
            if not isinstance(node.rule, Affine) and not self._cut(node):
                return False
            parents = [self._values[p] for p in node.parents]
            self._values[number] = _apply(node, parents)
            _forget(self._body, self._values, number)
        return True

    def _cut(self, node: Node) -> bool:
        [parent] = node.parents
        while True:
            x = self._values[parent]
            places = _changes(node, x)
            at = (self.t[:-1, None] + places * self.t.diff()[:, None])[torch.isfinite(places)]
            at = self._new(at.unique())
            if not len(at):
                return True
            width = sum(v[0].numel() for v in self._values.values())
            parts = float(self.t[-1] - self.t[0]) > _SMALLEST_PART
            if parts and (len(self.t) + len(at)) * width > _ROOM:
                return False
            self._insert(at)
            if not isinstance(node.rule, MaxPool):
                return True

    def _new(self, at: Tensor) -> Tensor:
        """Return those of `at` (N,), ascending, that are no ends of pieces up to rounding."""
        after = torch.searchsorted(self.t, at).clamp(1, len(self.t) - 1)
        far = torch.minimum(at - self.t[after - 1], self.t[after] - at) > _SLIVER
        far[1:] &= at.diff() > _SLIVER
        return at[far]

    def _insert(self, at: Tensor) -> None:
        """Cut pieces at `at` (N,), ascending and new."""
        after = torch.searchsorted(self.t, at)
        share = (at - self.t[after - 1]) / (self.t[after] - self.t[after - 1])
        t, order = torch.cat([self.t, at]).sort()
        for number, value in self._values.items():
            one, other = value[after - 1], value[after]
            new = torch.lerp(one, other, share.reshape(-1, *[1] * (value.dim() - 1)))
            self._values[number] = torch.cat([value, new])[order]
        self.t = t


def _apply(node: Node, parents: list[Tensor]) -> Tensor:
    rule = node.rule
    if isinstance(rule, Affine):
        out = rule.linear(*parents)
        return out if rule.offset is None else out + rule.offset
    [x] = parents
    if isinstance(rule, MaxPool):
        return windows(rule, x, node.shape).amax(dim=2).reshape(-1, *node.shape)
    assert isinstance(rule, Activation)
    return rule.evaluate(x)


def _forget(body: Body, values: dict[int, Tensor], number: int) -> None:
    """Remove what no operation after `number` reads."""
    needed = {p for node in body.nodes[number + 1 :] for p in node.parents} | {number}
    for old in set(values) - needed:
        del values[old]


def _changes(node: Node, x: Tensor) -> Tensor:
    """Return where pieces are to be cut, (P,n) in (0, 1), NaN for nowhere, from the ends (P+1,...).

    An operation of windows may need further cuts after these.
    """
    rule, rounding = node.rule, _ROUNDING * float(x.abs().amax())
    if isinstance(rule, Activation):
        pairs = [(v[:-1], v[1:]) for v in (x.flatten(1) - k for k in rule.knots)]
    else:
        assert isinstance(rule, MaxPool)
        numbers = windows(rule, x, node.shape).nan_to_num(neginf=-torch.finfo(x.dtype).max)
        left, right = numbers[:-1], numbers[1:]
        first, last = left.argmax(dim=2, keepdim=True), right.argmax(dim=2, keepdim=True)

        def lead(side: Tensor) -> Tensor:
            return (side.gather(2, first) - side.gather(2, last)).flatten(1)

        # of the number that is largest at the left over the one that is largest at the right
        pairs = [(lead(left), lead(right))]
    cuts = []
    for a, b in pairs:
        crossed = (a.sign() * b.sign() < 0) & (torch.minimum(a.abs(), b.abs()) > rounding)
        cuts.append(torch.where(crossed, a / (a - b), torch.nan))
    return torch.cat(cuts, dim=1)
