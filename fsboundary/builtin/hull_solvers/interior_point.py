"""The shortest vector between hulls of many points, by a primal-dual interior-point method.

min ½|Yᵀw|² over weights w >= 0 that sum to 1 in each group. Mehrotra's predictor and corrector
("On the implementation of a primal-dual interior point method", SIAM J. Optim. 2 (1992)); the
systems have the width of the points by the Sherman-Morrison-Woodbury formula, as in Ferris and
Munson, "Interior-point methods for massive support vector machines", SIAM J. Optim. 13 (2002).
The number of steps hardly depends on how many points carry weight, nor on ties among them.

A hull solver for few rows and wide hulls, also for pairs of hulls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import SAFETY, all_points, packed, row_by_row
from fsboundary.builtin.hull_solvers.min_norm_point import Array
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.point_sets import Lent
from fsboundary.geometry.hulls.separation import Differences
from fsboundary.plugins.interfaces import HullSolver

_INWARD = 0.995
"""Share of the way to the nearest bound of a weight or slack that a step goes."""

_BEYOND = 1e-3
"""Share of the tolerance to which the gap is closed, so that small weights can be told from 0."""

_RIDGE = 1e-13
"""Of each diagonal entry: points that span fewer dimensions make the system singular. What it
leaves of the residual, a repetition takes away."""

_REPEATS = 3
_TRIES = 8
_MOST_OUT = 0.1
"""Share of the points that may be left out on the way to 0 ..."""
_CLOSE = 1e-4
"""... or all where the vector is as short as this, relative to the points."""

_STUCK = 4
"""Steps in a row that may fail to lower the gap; rounding has the last word."""

_LIGHT = 1e-3, 1e-6
"""Bounds of the weights that may be left out at the end, and the root of the length before."""

_NONE = 1e-13
"""A vector shorter than this share of the points' size is none: rounding cannot tell."""


def shortest_weights(
    points: Tensor, sizes: tuple[int, ...], *, tolerance: float, max_steps: int
) -> tuple[Tensor, int]:
    """Return weights (n,) of the shortest Σ w_i y_i, and the steps taken.

    Where 0 can be reached, all weights are positive in general; else those that vanish are 0.

    Parameters
    ----------
    points : Tensor (n, d), float64
        The groups one after another.
    sizes : tuple of int
        Of the groups, at least 1 each; n together. Weights sum to 1 in each.
    tolerance : float
        Gap relative to the squared length.
    """
    size = float(torch.linalg.vector_norm(points, dim=1).mean())
    y = points / size if size > 0 else points
    groups = torch.arange(len(sizes), device=y.device)
    groups = groups.repeat_interleave(torch.tensor(sizes, device=y.device))
    member = torch.nn.functional.one_hot(groups, len(sizes)).to(y)
    both = torch.cat([y, member], dim=1)
    weights = 1 / member.sum(dim=0)[groups]
    slope = y @ (y.T @ weights)
    # strictly inside: every slack is at least 1
    level = torch.stack([part.min() for part in slope.split(sizes)]) - 1.0
    slack = slope - level[groups]
    best, least, stuck = weights, torch.inf, 0
    for step in range(max_steps):
        slope, squared, gap = _graded(y, weights, sizes)
        if squared <= _NONE**2 or gap <= _BEYOND * tolerance * squared:
            return _without_small(y, weights, slack, sizes, tolerance), step
        stuck += 1
        if gap < least:
            best, least, stuck = weights, gap, 0
        if stuck >= _STUCK:
            break
        ratio = weights / slack
        moment = both.T @ (ratio[:, None] * both)
        reached = _onto_zero(both, weights, ratio, moment, y.shape[1])
        if reached is not None:
            return reached, step + 1
        moment = moment[: y.shape[1], : y.shape[1]]
        moment.diagonal().add_(1.0)
        factor, info = torch.linalg.cholesky_ex(moment)
        if int(info):
            break
        system = _System(y, member, weights, slack, factor)
        off_dual, off_sum = slope - level[groups] - slack, 1 - member.T @ weights
        aim = -weights * slack
        move, _, other = system.step(off_dual, off_sum, aim)
        long = _room(weights, move, slack, other)
        before = weights @ slack
        after = (weights + long * move) @ (slack + long * other)
        # less of the second order where a bound is near, or steps may go round in a circle
        bent = (2 * long).clamp_max(1.0) * move * other
        aim = aim - bent + (after / before) ** 3 * before / len(y)
        move, lift, other = system.step(off_dual, off_sum, aim)
        if not bool(torch.isfinite(other).all() & torch.isfinite(move).all()):
            break
        long = _INWARD * _room(weights, move, slack, other)
        weights, level = weights + long * move, level + long * lift
        slack = slack + long * other
    else:
        return best, max_steps
    # rounding has the last word
    return _on_face(y, best, sizes), step


def _graded(y: Tensor, weights: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, float, float]:
    """Return the slope (n,) of half the squared length, that square, and its gap."""
    residual = y.T @ weights
    slope, squared = y @ residual, residual @ residual
    gap = squared - sum(part.min() for part in slope.split(sizes))
    return slope, float(squared), float(gap)


class _System:
    """Newton's equations at one iterate: one factor, several right-hand sides."""

    def __init__(
        self, y: Tensor, member: Tensor, weights: Tensor, slack: Tensor, factor: Tensor
    ) -> None:
        self._y, self._member, self._factor = y, member, factor
        self._weights, self._slack, self._ratio = weights, slack, weights / slack
        self._sums = self._solve(member)
        self._small = member.T @ self._sums

    def _solve(self, right: Tensor) -> Tensor:
        """Return (diag(slack / weights) + Y Yᵀ)⁻¹ `right` (n,k)."""
        inner = torch.cholesky_solve(self._y.T @ (self._ratio[:, None] * right), self._factor)
        return self._ratio[:, None] * (right - self._y @ inner)

    def step(self, off_dual: Tensor, off_sum: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the moves of weights (n,), levels and slacks (n,).

        They take away what slopes less slacks and levels, and the sums of the groups, are off by,
        and `aim` (n,) is what the products of weights and slacks gain to first order.
        """
        free = self._solve((aim / self._weights - off_dual)[:, None])[:, 0]
        # the caller looks for what is not finite
        lift, _ = torch.linalg.solve_ex(self._small, off_sum - self._member.T @ free)
        move = free + self._sums @ lift
        return move, lift, (aim - self._slack * move) / self._weights


def _room(weights: Tensor, move: Tensor, slack: Tensor, other: Tensor) -> Tensor:
    """Return how far, 1 at most, both may go without a bound being met."""
    both, way = torch.cat([weights, slack]), torch.cat([move, other])
    return torch.where(way < 0, -both / way, torch.inf).min().clamp_max(1.0)


def _onto_zero(
    both: Tensor, weights: Tensor, ratio: Tensor, system: Tensor, width: int
) -> Tensor | None:
    """Return weights whose combination is 0, near to `weights` in this metric, if there are such.

    So hulls are seen to meet many steps before the method tends there. Points whose weight would
    be negative are left out and the rest tries again: a pixel that is on in one image alone wants
    the weight of that image to be 0. The columns of `both` are the points' and their groups'.
    """
    aim = _zero(both, width)
    close = float(torch.linalg.vector_norm(aim - both.T @ weights)) <= _CLOSE
    start, left = weights, len(both) if close else _MOST_OUT * len(both)
    system = system.clone()
    for _ in range(_TRIES):
        diagonal = system.diagonal()
        diagonal.copy_(torch.where(diagonal > 0, diagonal * (1 + _RIDGE), 1.0))
        factor, info = torch.linalg.cholesky_ex(system)
        if int(info):
            return None
        found = start
        for _ in range(_REPEATS):
            turn = torch.cholesky_solve((aim - both.T @ found)[:, None], factor)[:, 0]
            found = found + ratio * (both @ turn)
        out = found < 0
        if not bool(out.any()):
            return found if _reaches(both, found, aim) else None
        left -= int(out.sum())
        if left < 0:
            return None
        start, ratio = torch.where(out, 0.0, start), torch.where(out, 0.0, ratio)
        system = both.T @ (ratio[:, None] * both)
    return None


def _on_face(y: Tensor, weights: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the weights of the shortest combination of the heaviest points, if they are better.

    Where 0 lies on the border of what can be reached, as where hulls touch, all other weights tend
    to 0 together with their slacks, and no step tells them apart.
    """
    best, (_, squared, least) = weights, _graded(y, weights, sizes)
    for bound in (squared**0.25, *_LIGHT):
        found = weights
        for _ in range(_TRIES):
            found = _shortest(y, found, found > bound, sizes)
            if bool((found >= 0).all() | ~torch.isfinite(found).all()):
                break
            bound = 0.0
        _, _, gap = _graded(y, found, sizes)
        if bool((found >= 0).all()) and gap < least:
            best, least = found, gap
    return best


def _shortest(y: Tensor, weights: Tensor, kept: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the shortest combination of the `kept` points (n,), of any sign, near to `weights`."""
    start = torch.where(kept, weights, 0.0)
    parts = start.split(sizes)
    if not all(bool((part > 0).any()) for part in parts):
        return weights
    start = torch.cat([part / part.sum() for part in parts])
    heaviest = [part.argmax() for part in parts]
    away = torch.cat([part - part[k] for part, k in zip(y.split(sizes), heaviest, strict=True)])
    # of all solutions the nearest, for the points may span fewer dimensions
    turn = torch.zeros_like(start)
    turn[kept] = torch.linalg.lstsq(away[kept].T, -(y.T @ start)[:, None], driver="gelsd").solution[
        :, 0
    ]
    found = list((start + turn).split(sizes))
    for part, k in zip(found, heaviest, strict=True):
        part[k] += 1 - part.sum()
    return torch.cat(found)


def _zero(both: Tensor, width: int) -> Tensor:
    """Return what the columns of `both` add up to under weights of 0: 1 in those of groups."""
    return (torch.arange(both.shape[1], device=both.device) >= width).to(both)


def _reaches(both: Tensor, weights: Tensor, aim: Tensor) -> bool:
    """Whether `weights` are none below 0 and give `aim` but for rounding."""
    off = torch.linalg.vector_norm(aim - both.T @ weights)
    return bool((weights >= 0).all() & (off <= 10 * _NONE))


def _without_small(
    y: Tensor, weights: Tensor, slack: Tensor, sizes: tuple[int, ...], tolerance: float
) -> Tensor:
    """Return `weights` without those below their slack, where that keeps the tolerance."""
    kept = torch.where(weights > slack, weights, 0.0)
    kept = torch.cat([part / part.sum() for part in kept.split(sizes)])
    _, squared, gap = _graded(y, kept, sizes)
    return kept if gap <= tolerance * squared else weights


@final
@dataclass(frozen=True, slots=True)
class InteriorPoint(HullSolver):
    """Solve each row on all points at once: 20 to 40 steps, whatever the support.

    A step costs a product of n by d by d numbers. Two hulls are n + m points for it, not n m
    differences, so it is the choice for :func:`fsboundary.hulls.hull_separation` in hundreds of
    dimensions; for many rows in one hull it is slow. Inside a hull all points carry weight.

    Parameters
    ----------
    most : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    most: int = 2**28

    def prepare(self, points: PointSet) -> tuple[tuple[int, ...], Tensor]:
        """Return the sizes of the hulls and all points (n,d), those of a second hull negative."""
        own = points.own if isinstance(points, Lent) else points
        sides = (own.one, own.other) if isinstance(own, Differences) else (own,)
        held = [torch.from_numpy(all_points(side, self.most)) for side in sides]
        rows = held[0]
        if len(held) > 1:
            # differences do not feel a shift of both, but rounding does
            middle = rows.mean(dim=0)
            rows = torch.cat([rows - middle, middle - held[1]])
        return tuple(len(part) for part in held), rows

    def project(
        self,
        state: tuple[tuple[int, ...], Tensor],
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d)."""
        sizes, points = state
        if exclude is not None and len(sizes) > 1:
            raise ArgumentError("exclude", "differences", "None", "leave points of a hull out")

        def solve(query: Array, kept: NDArray[np.intp] | None) -> tuple[Array, int]:
            shifted = points.clone() if kept is None else points[kept]
            own = sizes if kept is None else (len(kept),)
            shifted[: own[0]] -= torch.from_numpy(query)
            share, steps = shortest_weights(
                shifted, own, tolerance=SAFETY * tolerance, max_steps=max_steps
            )
            return share.numpy(), steps

        if len(sizes) == 1:
            return row_by_row(queries, exclude, len(points), solve)
        found = []
        for query in queries.cpu().numpy():
            share, steps = solve(query, None)
            found.append((*_differences(share, sizes[0]), steps))
        return packed(queries, found)


def _differences(share: Array, rows: int) -> tuple[NDArray[np.intp], Array]:
    """Return differences (S,) and weights that add up to those of both sides, `rows` of one."""
    # from the north-west corner
    ends = [np.cumsum(part) for part in (share[:rows], share[rows:])]
    ends = [end / end[-1] for end in ends]
    cuts = np.unique(np.concatenate(ends))
    cuts = cuts[cuts > 0]
    weights = np.diff(cuts, prepend=0.0)
    middle = cuts - weights / 2
    one, other = (np.minimum(np.searchsorted(end, middle), len(end) - 1) for end in ends)
    return one * (len(share) - rows) + other, weights
