"""Largest axis-aligned boxes around points of one decision region.

A box reaches x_j >= 0 to each of its 2d sides, first all lower ones, then all upper ones. Class k
stays below class i on it iff the worst corner has a positive margin,

    m_k - Σ_j A_kj x_j > 0,  with A_k = (a⁺, a⁻), a = w_i - w_k, m_k the margin at the point,

and the domain leaves room_j for each side: linear constraints on x. Of all x, :func:`fair_reach`
proposes the one whose smallest side is largest, then the next smallest, and so on;
:func:`certain` decides what of a proposal is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.lengths import TINY

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
    largest cube (:mod:`fsboundary.geometry.flips.linf`). A step to the first class that would run out
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
