"""Largest axis-aligned boxes around points of one decision region.

A box reaches x_j >= 0 to each of its 2d sides, first all lower ones, then all upper ones. Class k
stays below class i on it iff the worst corner has a positive margin,

    m_k - Σ_j A_kj x_j > 0,  with A_k = (a⁺, a⁻), a = w_i - w_k, m_k the margin at the point,

and the domain leaves room_j for each side: linear constraints on x. Of all x, :func:`fair_reach`
proposes the one whose smallest side is largest, then the next smallest, and so on;
:func:`certain` decides what of a proposal is kept.

Which points lie in at least one of many balls.

A float32 matrix product rules out nearly all pairs of a point and a ball, by a bound of its
rounding; float64 distances, raised by theirs, decide the others.

How deep points lie in the polyhedron of their class, the domain left out.

The distance of a point of class i to the half-space where class k is above,
``((w_i - w_k).z + b_i - b_k) / |w_i - w_k|``, is linear in z, so its minimum over a hull is its
minimum over the generators. Flip distances in a domain are convex in z instead and would not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.nearest import margin_bounds
from fsboundary.geometry.norms import TINY, lengths

_ATTEMPTS = 4
_LARGEST = torch.finfo(torch.float64).max / 16


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxProblems:
    """B points of region `source`, and the constraints of their boxes.

    Attributes
    ----------
    z : Tensor (B, d), float64, inside the domain
    normal, offset : Tensor (K, d), (K,)
        ``w_i - w_k`` and ``b_i - b_k``; zero for k = i.
    other : Tensor (K,), bool
        False for k = i.
    low, high : Tensor (d,)
        The domain.
    """

    z: Tensor
    normal: Tensor
    offset: Tensor
    other: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, head: LinearHead, z: Tensor, source: int) -> BoxProblems:
        """Return the problems of rows `z`, all of class `source`."""
        low, high = head.domain.limits(z)
        other = torch.ones_like(head.bias, dtype=torch.bool)
        other[source] = False
        return cls(
            z=z,
            normal=head.weight[source] - head.weight,
            offset=head.bias[source] - head.bias,
            other=other,
            low=low,
            high=high,
        )

    @property
    def costs(self) -> Tensor:
        """Return A (K,2d)."""
        return torch.cat([self.normal.clamp_min(0.0), (-self.normal).clamp_min(0.0)], dim=1)

    @property
    def room(self) -> Tensor:
        """Return how far the domain lets each side go, (B,2d)."""
        return torch.cat([self.z - self.low, self.high - self.z], dim=1)

    def margins(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return each class's smallest margin (B,K) in boxes, and a bound of its rounding.

        Each margin is a sum of 2d products and an offset, with every factor rounded once.
        """
        gamma = dot_error(2 * self.z.shape[1] + 8)
        down, up = self.costs.chunk(2, dim=1)
        endless_low, endless_high = torch.isinf(lower), torch.isinf(upper)
        low, high = lower.masked_fill(endless_low, 0.0), upper.masked_fill(endless_high, 0.0)
        value = low @ down.T - high @ up.T + self.offset
        size = low.abs() @ down.T + high.abs() @ up.T + self.offset.abs()
        endless = endless_low.to(value) @ (down > 0).to(value).T
        endless = endless + endless_high.to(value) @ (up > 0).to(value).T
        return value.masked_fill(endless > 0, -torch.inf), gamma * (size + 4 * TINY)

    def ends(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Return the limits (B,d) of boxes of `reach` (B,2d), inside the domain."""
        down, up = reach.chunk(2, dim=1)
        return torch.maximum(self.z - down, self.low), torch.minimum(self.z + up, self.high)

    def goals(self) -> tuple[Tensor, Tensor]:
        """Return margins (B,K) at the points, +inf for k = i, and a bound of their rounding."""
        value, error = self.margins(self.z, self.z)
        # a margin that overflowed proves nothing
        value = value.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        return value.masked_fill(~self.other, torch.inf), error


def fair_reach(problems: BoxProblems) -> Tensor:
    """Return the reach (B,2d) whose smallest side is largest, then the next smallest, and so on.

    All sides grow together. One stops when the domain ends or when a class whose margin it lowers
    has none left; the others go on. No side of the result can grow alone, and it holds the
    largest cube (:mod:`fsboundary.geometry.flips.nearest`). A step to the first class that would run out
    if no side stopped never goes too far, since sides that stop only help.
    """
    goal, error = problems.goals()
    goal = goal - error
    cost, room = problems.costs[problems.other], problems.room
    goal = goal[:, problems.other]
    # a side that no class minds takes all of its room
    grows = (cost > 0).any(dim=0) & (room > 0) & (goal > 0).all(dim=1, keepdim=True)
    reach = torch.where((cost > 0).any(dim=0), 0.0, room)
    level = torch.zeros_like(goal[:, :1])
    # every round ends the growth of a side, unless numbers overflow
    for _ in range(room.shape[1]):
        if not bool(grows.any()):
            break
        left = (goal - torch.where(torch.isinf(reach), 0.0, reach) @ cost.T).clamp_min(0.0)
        slope = grows.to(cost) @ cost.T
        step, tight = torch.where(slope > 0, left / slope, torch.inf).min(dim=1, keepdim=True)
        level = (level + step).clamp_max(_LARGEST)
        full = grows & (room <= level)
        stopped = cost[tight[:, 0]] > 0
        # nothing filled its room on the way, so the step went all the way
        done = ~full.any(dim=1, keepdim=True)
        reach = torch.where(grows, torch.minimum(room, level), reach)
        grows = grows & ~full & ~(done & stopped)
    return reach


def certain(problems: BoxProblems, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return limits (B,d) and (B,d) of boxes that certainly keep the class, and where there are.

    A proposal that goes too far is shrunk towards its point: margins are linear in the share that
    is kept. The margins of the box as it is returned must be above the bound of their rounding.
    """
    margin, _ = problems.goals()
    sides = torch.where(torch.isinf(reach), 0.0, reach)
    fall = sides @ problems.costs.T
    minded = (problems.costs > 0).any(dim=0)
    lower, upper = problems.ends(reach)
    good = torch.zeros_like(lower[:, 0], dtype=torch.bool)
    for attempt in range(_ATTEMPTS):
        value, error = problems.margins(lower, upper)
        # NaN compares false
        good = ((value > error) | ~problems.other).all(dim=1)
        if bool(good.all()):
            break
        spare = (margin - 2**attempt * 2 * error).clamp_min(0.0)
        share = torch.where(fall > spare, spare / fall, 1.0).amin(dim=1, keepdim=True)
        again = torch.where(minded, reach * (share * (1 - 4 * EPS)), reach)
        less = problems.ends(again)
        lower = torch.where(good[:, None], lower, less[0])
        upper = torch.where(good[:, None], upper, less[1])
    return lower, upper, good


_SINGLE = torch.finfo(torch.float32)
_PAIRS = 2**20
"""Pairs looked at in one go."""


def first_cover(centres: Tensor, radius: Tensor, z: Tensor) -> Tensor:
    """Return a ball (B,) in which each point certainly lies, -1 where there is none.

    Which one of several is left open.

    Parameters
    ----------
    centres : Tensor (n, d), float64, finite
    radius : Tensor (n,), float64
        Of open balls; may be +inf.
    z : Tensor (B, d), float64, finite
    """
    cover = torch.full((len(z),), -1, dtype=torch.int64, device=z.device)
    if not len(centres) or not len(z):
        return cover
    # about the mean, and of size one, float32 loses least
    middle = z.mean(dim=0)
    a, b = z - middle, centres - middle
    scale = torch.maximum(a.abs().amax(), b.abs().amax())
    scale = torch.where(scale > 0, scale, 1.0)
    a, b, r = a / scale, b / scale, radius / scale
    for part in chunks(len(z), max(1, _PAIRS // len(centres))):
        value, doubt = _rough(a[part], b, r)
        # NaN, where something overflowed, rules nothing out
        maybe = ~(value > doubt)
        best = torch.where(maybe, value.nan_to_num(nan=0.0), torch.inf).argmin(dim=1)
        fits = maybe.any(dim=1) & _inside(z[part], centres[best], radius[best])
        cover[part] = torch.where(fits, best, -1)
        rows, balls = (maybe & ~fits[:, None]).nonzero(as_tuple=True)
        for pairs in chunks(len(rows), chunk_rows(z.shape[1])):
            row, ball = rows[pairs], balls[pairs]
            good = _inside(z[part][row], centres[ball], radius[ball])
            cover[part.start + row[good]] = ball[good]
    return cover


def _rough(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``|a - b|² - r²`` (B,n) and a bound of its error, for entries of at most 1.

    Twice the γ of a float32 product with both factors rounded also covers the float64 sums. What
    underflows in the product is below the smallest normal number a term.
    """
    width = a.shape[1]
    product = (a.to(torch.float32) @ b.to(torch.float32).T).to(torch.float64)
    size_a, size_b = lengths(a), lengths(b)
    value = size_a.square()[:, None] + (size_b.square() - r.square()) - 2 * product
    unit = (width + 16) * _SINGLE.eps
    return value, unit * (size_a[:, None] + size_b).square() + 4 * width * _SINGLE.tiny


def _inside(z: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """Whether each row of `z` is certainly nearer than its radius to its centre, (P,)."""
    return lengths(z - centres) * (1 + (z.shape[1] + 8) * EPS) < radius


def depths(head: LinearHead, z: Tensor, source: Tensor) -> Tensor:
    """Return a lower bound (B,) of the distance to where another class is not below.

    0 where rounding hides on which side of a tie the row lies; +inf where the weights of all
    other classes equal the source's and their biases are lower.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64
    source : Tensor (B,)
    """
    found = [z.new_zeros(0)]
    for part in chunks(len(z), chunk_rows(max(head.num_features, head.num_classes))):
        lowered = margin_bounds(head, z[part], source[part], 2.0, keeps=True)[1].amin(dim=1)
        # where all weights agree the bound does not look at z
        finite = torch.isfinite(z[part]).all(dim=1)
        found.append(torch.where(finite, lowered, 0.0))
    return torch.cat(found)


def hull_distance_bound(generators: Tensor, weights: Tensor, z: Tensor) -> Tensor:
    """Return an upper bound (B,) of the distance to the hull, from a combination of generators.

    With a = the weights divided by their exact sum s, the point Σ a_i v_i is in the hull. What is
    computed differs from it by at most |1 - s| R for the division and γ (s R) for the sum, with R
    the largest norm of a generator that carries weight; the subtraction and the length are off by
    γ times the result. Terms of γ: S + d + 16.

    Parameters
    ----------
    generators : Tensor (B, S, d), float64
    weights : Tensor (B, S), float64
        Not negative; +inf is returned where all are 0.
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
