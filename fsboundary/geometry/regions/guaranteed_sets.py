"""Certified boxes, balls and hulls of one class: extents, membership and half-space distances.

Boxes are axis-aligned and extend x_j >= 0 from a point to each of their 2d sides, first all lower
ones, then all upper ones. Class k stays below class i on a box iff the worst corner has a positive
margin,

    m_k - Σ_j A_kj x_j > 0,  with A_k = (a⁺, a⁻), a = w_i - w_k, m_k the margin at the point,

and the domain leaves room_j for each side: linear constraints on x. Of all x,
:func:`max_min_extents` proposes the one whose smallest side is largest, then the next smallest, and
so on; :func:`certify_boxes` decides which part of a proposal is kept.

Membership in one of many balls: a float32 matrix product excludes nearly all pairs of a point and a
ball, by a bound of its rounding; float64 distances, raised by theirs, decide the others.

Half-space distances, without the domain: the distance of a point of class i to the half-space where
class k is above, ``((w_i - w_k).z + b_i - b_k) / |w_i - w_k|``, is linear in z, so its minimum over
a hull is its minimum over the generators. Flip distances in a domain are convex in z instead and
cannot be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import chunk_rows, chunks, map_chunks
from fsboundary.geometry.flips.nearest import tie_distance_bounds
from fsboundary.geometry.norms import TINY, lengths
from fsboundary.modes import float32_product

_ATTEMPTS = 4
_LARGEST = torch.finfo(torch.float64).max / 16


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxProblems:
    """B points of region `source`, and the constraints of their boxes.

    Attributes
    ----------
    z : Tensor (B, d), float64, inside the domain
    costs : Tensor (K, 2d)
        The matrix A; its row i is zero.
    offset : Tensor (K,)
        ``b_i - b_k``.
    other : Tensor (K,), bool
        Mask of the other classes: False for k = i.
    low, high : Tensor (d,)
        Limits of the domain.
    """

    z: Tensor
    costs: Tensor
    offset: Tensor
    other: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, head: LinearHead, z: Tensor, source: int) -> BoxProblems:
        """Return the problems of rows `z`, all of class `source`."""
        low, high = head.domain.limits(z)
        other = torch.ones_like(head._bias, dtype=torch.bool)
        other[source] = False
        normal = head._weight[source] - head._weight
        return cls(
            z=z,
            costs=torch.cat([normal.clamp_min(0.0), normal.neg_().clamp_min_(0.0)], dim=1),
            offset=head._bias[source] - head._bias,
            other=other,
            low=low,
            high=high,
        )

    @property
    def room(self) -> Tensor:
        """Return the largest extent of each side in the domain, (B,2d)."""
        return torch.cat([self.z - self.low, self.high - self.z], dim=1)

    def margins(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return each class's smallest margin (B,K) in boxes, and a bound of its rounding.

        Each margin is a sum of 2d products and an offset, with every factor rounded once.
        """
        gamma = dot_error(2 * self.z.shape[1] + 8)
        ends = torch.cat([lower, -upper], dim=1)
        infinite = torch.isinf(ends)
        ends = ends.masked_fill(infinite, 0.0)
        # one product reads the matrix once
        value, size = (torch.cat([ends, ends.abs()]) @ self.costs.T).chunk(2)
        value, size = value + self.offset, size + self.offset.abs()
        if bool(infinite.any()):
            reached = infinite.to(value) @ (self.costs > 0).to(value).T > 0
            value = value.masked_fill(reached, -torch.inf)
        return value, gamma * (size + 4 * TINY)

    def limits(self, extents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the limits (B,d) of boxes of `extents` (B,2d), inside the domain."""
        down, up = extents.chunk(2, dim=1)
        return torch.maximum(self.z - down, self.low), torch.minimum(self.z + up, self.high)

    def point_margins(self) -> tuple[Tensor, Tensor]:
        """Return margins (B,K) at the points, +inf for k = i, and a bound of their rounding."""
        value, error = self.margins(self.z, self.z)
        # a margin that overflowed proves nothing
        value = value.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        return value.masked_fill(~self.other, torch.inf), error


def max_min_extents(problems: BoxProblems) -> Float64[Tensor, "B sides"]:
    """Return the extents (B,2d) whose smallest is largest, then the next smallest, and so on.

    All sides grow together. One stops when the domain ends or when a class whose margin it lowers
    has no margin left; the others continue. No single side of the result can grow, and it contains
    the largest cube (:mod:`fsboundary.geometry.flips.nearest`). A step to the first class that
    would run out if no side stopped never goes too far, because sides that stop only help.
    """
    margin, error = problems.point_margins()
    left, cost, room = (margin - error).clamp_min(0.0), problems.costs, problems.room
    limited = (cost > 0).any(dim=0)
    grows = limited & (room > 0) & (left > 0).all(dim=1, keepdim=True)
    # a side that lowers no margin extends to the end of the domain
    extents = torch.where(limited, 0.0, room)
    level = torch.zeros_like(left[:, :1])
    slope = grows.to(cost) @ cost.T
    growing = torch.arange(cost.shape[1], device=cost.device)
    # every round ends the growth of a side, unless numbers overflow
    for _ in range(room.shape[1]):
        if not bool(grows.any()):
            break
        step, tight = torch.where(slope > 0, left / slope, torch.inf).min(dim=1, keepdim=True)
        before, level = level, (level + step).clamp_max(_LARGEST)
        full = grows & (room <= level)
        stopped = problems.costs[tight[:, 0]] > 0
        # no side filled its room, so the step was a full one
        done = ~full.any(dim=1, keepdim=True)
        extents = torch.where(grows, torch.minimum(room, level), extents)
        growth = torch.where(grows, torch.minimum(room, level) - before, 0.0)
        grows = grows & ~full & ~(done & stopped)
        # most sides stop in the first rounds: only the columns of the others are read again
        both = torch.cat([growth, grows.to(growth)])[:, growing]
        fall, slope = (both @ cost.T).chunk(2)
        left = (left - fall).clamp_min(0.0)
        used = grows[:, growing].any(dim=0)
        if 2 * int(used.sum()) <= len(growing):
            growing, cost = growing[used], cost[:, used]
    return extents


def certify_boxes(
    problems: BoxProblems, extents: Float64[Tensor, "B sides"]
) -> tuple[Float64[Tensor, "B d"], Float64[Tensor, "B d"], Bool[Tensor, " B"]]:
    """Return limits (B,d), (B,d) of boxes that provably keep the class, and which are proved (B,).

    A proposal that goes too far is shrunk towards its point: margins are linear in the fraction
    that is kept. The margins of the returned box must be above the bound of their rounding.
    """
    lower, upper = problems.limits(extents)
    good = torch.zeros_like(lower[:, 0], dtype=torch.bool)
    for attempt in range(_ATTEMPTS):
        value, error = problems.margins(lower, upper)
        # NaN compares false
        good = ((value > error) | ~problems.other).all(dim=1)
        if bool(good.all()):
            break
        margin, _ = problems.point_margins()
        fall = torch.where(torch.isinf(extents), 0.0, extents) @ problems.costs.T
        limited = (problems.costs > 0).any(dim=0)
        allowed = (margin - 2**attempt * 2 * error).clamp_min(0.0)
        fraction = torch.where(fall > allowed, allowed / fall, 1.0).amin(dim=1, keepdim=True)
        shrunk = torch.where(limited, extents * (fraction * (1 - 4 * EPS)), extents)
        limits = problems.limits(shrunk)
        lower = torch.where(good[:, None], lower, limits[0])
        upper = torch.where(good[:, None], upper, limits[1])
    return lower, upper, good


_SINGLE = torch.finfo(torch.float32)
_PAIRS = 2**20
"""Number of pairs compared at once."""


def containing_ball(
    centres: Float64[Tensor, "n d"], radius: Float64[Tensor, " n"], z: Float64[Tensor, "B d"]
) -> Int[Tensor, " B"]:
    """Return a ball (B,) that provably contains each point, -1 where there is none.

    If there are several, any one of them.

    Parameters
    ----------
    centres : Tensor (n, d), float64, finite
    radius : Tensor (n,), float64
        Radii of open balls; may be +inf.
    z : Tensor (B, d), float64, finite
    """
    cover = torch.full((len(z),), -1, dtype=torch.int64, device=z.device)
    if not len(centres) or not len(z):
        return cover
    # centred and scaled to size one, float32 loses least
    middle = z.mean(dim=0)
    a, b = z - middle, centres - middle
    scale = torch.maximum(a.abs().amax(), b.abs().amax())
    scale = torch.where(scale > 0, scale, 1.0)
    a, b, r = a / scale, b / scale, radius / scale
    for part in chunks(len(z), max(1, _PAIRS // len(centres))):
        value, doubt = _float32_excess(a[part], b, r)
        # NaN from an overflow excludes nothing
        possible = ~(value > doubt)
        best = torch.where(possible, value.nan_to_num(nan=0.0), torch.inf).argmin(dim=1)
        fits = possible.any(dim=1) & _is_inside(z[part], centres[best], radius[best])
        cover[part] = torch.where(fits, best, -1)
        rows, balls = (possible & ~fits[:, None]).nonzero(as_tuple=True)
        for pairs in chunks(len(rows), chunk_rows(z.shape[1])):
            row, ball = rows[pairs], balls[pairs]
            good = _is_inside(z[part][row], centres[ball], radius[ball])
            cover[part.start + row[good]] = ball[good]
    return cover


def _float32_excess(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``|a - b|² - r²`` (B,n) and a bound of its error, for entries of at most 1.

    Twice the γ of a float32 product with both factors rounded also covers the float64 sums.
    A term may lose the smallest normal number by underflow, and as much again where subnormal
    factors, products and sums are set to zero.
    """
    width = a.shape[1]
    product = float32_product(a, b.T)
    size_a, size_b = lengths(a), lengths(b)
    value = size_a.square()[:, None] + (size_b.square() - r.square()) - 2 * product
    unit = (width + 16) * _SINGLE.eps
    return value, unit * (size_a[:, None] + size_b).square() + 8 * width * _SINGLE.tiny


def _is_inside(z: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """Return whether each row of `z` is provably nearer than its radius to its centre, (P,)."""
    return lengths(z - centres) * (1 + (z.shape[1] + 8) * EPS) < radius


def halfspace_distances(
    head: LinearHead, z: Float64[Tensor, "B d"], source: Int[Tensor, " B"]
) -> Float64[Tensor, " B"]:
    """Return a lower bound (B,) of the distance to the half-spaces of the other classes.

    In the half-space of a class its logit is not below the source's.

    0 where rounding hides on which side of a tie the row lies; +inf where the weights of all
    other classes equal the source's and their biases are lower.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64
    source : Tensor (B,)
    """

    def distances(part: slice) -> Tensor:
        lowered = tie_distance_bounds(head, z[part], source[part], 2.0, allow_ties=True)[1].amin(
            dim=1
        )
        # where all weights agree the bound does not depend on z
        finite = torch.isfinite(z[part]).all(dim=1)
        return torch.where(finite, lowered, 0.0)

    width = max(head.num_features, head.num_classes)
    return torch.cat([z.new_zeros(0), *map_chunks(distances, len(z), width, z.device)])


def hull_distance_bound(
    generators: Float64[Tensor, "B S d"],
    weights: Float64[Tensor, "B S"],
    z: Float64[Tensor, "B d"],
) -> Float64[Tensor, " B"]:
    """Return an upper bound (B,) of the distance to the hull, from a combination of generators.

    With a = the weights divided by their exact sum s, the point Σ a_i v_i is in the hull. The
    computed point differs from it by at most |1 - s| R for the division and γ (s R) for the sum,
    with R the largest norm of a generator that carries weight; the subtraction and the length are
    off by γ times the result. γ has S + d + 16 terms.

    Parameters
    ----------
    generators : Tensor (B, S, d), float64
    weights : Tensor (B, S), float64
        Nonnegative weights; the bound is +inf where all are 0.
    z : Tensor (B, d), float64
    """
    gamma = dot_error(weights.shape[1] + z.shape[1] + 16)
    used = weights > 0
    total = weights.sum(dim=1)
    largest = torch.where(used, lengths(generators), 0.0).amax(dim=1)
    distance = lengths(z - (weights[:, None] @ generators)[:, 0])
    # the sum itself is rounded too
    unit = (1 - total).abs() + gamma * (1 + total)
    bound = (distance + (unit + gamma * total) * largest + TINY) * (1 + gamma + 4 * EPS)
    return torch.where(used.any(dim=1), bound, torch.inf).nan_to_num(
        nan=torch.inf, posinf=torch.inf
    )
