"""Hull solver by a primal-dual interior-point method, for few rows, wide hulls and pairs of hulls.

It finds the shortest vector between hulls of many points:
min ½|Yᵀw|² over weights w >= 0 that sum to 1 in each group. Mehrotra's predictor and corrector
("On the implementation of a primal-dual interior point method", SIAM J. Optim. 2 (1992)); the
systems have the width of the points by the Sherman-Morrison-Woodbury formula, as in Ferris and
Munson, "Interior-point methods for massive support vector machines", SIAM J. Optim. 13 (2002).
The number of steps hardly depends on how many points carry weight, nor on ties among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.builtin.hull_solvers.common import (
    SAFETY_FACTOR,
    all_points,
    pack_supports,
    solve_rows,
)
from fsboundary.builtin.hull_solvers.min_norm_point import Array
from fsboundary.core.checks import check_integers
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import DifferenceSet, PointSet
from fsboundary.core.results import HullProjection
from fsboundary.plugins.interfaces import HullSolver

_INWARD = 0.995
"""Fraction of the way to the nearest bound of a weight or slack that a step goes."""

_BEYOND = 1e-3
"""Fraction of the tolerance to which the gap is closed, so that small weights differ from 0."""

_RIDGE = 1e-13
"""Fraction of each diagonal entry that is added to it, because points that span fewer dimensions
make the system singular. Iterative refinement removes the residual that it leaves."""

_REFINEMENTS = 3
_TRIES = 8
_MAX_DROPPED = 0.1
"""Fraction of the points that may be dropped on the way to 0 ..."""
_CLOSE = 1e-4
"""... or all where the vector is as short as this, relative to the points."""

_STUCK = 4
"""Consecutive steps that may fail to lower the gap before rounding is taken to be the limit."""

_SMALL_WEIGHTS = 1e-3, 1e-6
"""Weights below these may be dropped at the end, after those below the root of the length."""

_ZERO = 1e-13
"""A vector shorter than this fraction of the points' size is 0 within rounding."""


def shortest_weights(
    points: Tensor, sizes: tuple[int, ...], *, tolerance: float, max_steps: int
) -> tuple[Tensor, int]:
    """Return weights (n,) of the shortest Σ w_i y_i, and the number of steps.

    Where 0 can be reached, all weights are positive in general; else those that vanish are 0.

    Parameters
    ----------
    points : Tensor (n, d), float64
        Points of the groups, one group after another.
    sizes : tuple of int
        Sizes of the groups, at least 1 each; n together. Weights sum to 1 in each.
    tolerance : float
        Gap relative to the squared length.
    max_steps : int
        Limit of steps.
    """
    size = float(torch.linalg.vector_norm(points, dim=1).mean())
    iterate = _Iterate(points / size if size > 0 else points, sizes)
    best, smallest_gap, stalled = iterate.weights, torch.inf, 0
    for step in range(max_steps):
        slope, squared, gap = _graded(iterate.y, iterate.weights, sizes)
        if squared <= _ZERO**2 or gap <= _BEYOND * tolerance * squared:
            slack = iterate.slack
            return _without_small(iterate.y, iterate.weights, slack, sizes, tolerance), step
        stalled += 1
        if gap < smallest_gap:
            best, smallest_gap, stalled = iterate.weights, gap, 0
        if stalled >= _STUCK:
            break
        ratio, moment = iterate.moment()
        at_zero = _onto_zero(iterate.both, iterate.weights, ratio, moment, iterate.y.shape[1])
        if at_zero is not None:
            return at_zero, step + 1
        if not iterate.advance(slope, moment):
            break
    else:
        return best, max_steps
    # rounding allows no further progress
    return _on_face(iterate.y, best, sizes), step


class _Iterate:
    """Weights, slacks and levels of the groups at one step, all strictly inside their bounds."""

    def __init__(self, y: Tensor, sizes: tuple[int, ...]) -> None:
        groups = torch.arange(len(sizes), device=y.device)
        self.y = y
        self._groups = groups.repeat_interleave(torch.tensor(sizes, device=y.device))
        self._member = torch.nn.functional.one_hot(self._groups, len(sizes)).to(y)
        self.both = torch.cat([y, self._member], dim=1)
        self.weights = 1 / self._member.sum(dim=0)[self._groups]
        slope = y @ (y.T @ self.weights)
        # strictly inside: every slack is at least 1
        self._level = torch.stack([part.min() for part in slope.split(sizes)]) - 1.0
        self.slack = slope - self._level[self._groups]

    def moment(self) -> tuple[Tensor, Tensor]:
        """Return weights over slacks (n,), and the products of points and groups so weighted."""
        ratio = self.weights / self.slack
        return ratio, self.both.T @ (ratio[:, None] * self.both)

    def advance(self, slope: Tensor, moment: Tensor) -> bool:
        """Take one step of predictor and corrector; return False where rounding prevents it."""
        moment = moment[: self.y.shape[1], : self.y.shape[1]]
        moment.diagonal().add_(1.0)
        factor, info = torch.linalg.cholesky_ex(moment)
        if int(info):
            return False
        weights, slack = self.weights, self.slack
        system = _System(self.y, self._member, weights, slack, factor)
        off_dual = slope - self._level[self._groups] - slack
        off_sum = 1 - self._member.T @ weights
        aim = -weights * slack
        move, _, other = system.step(off_dual, off_sum, aim)
        length = _room(weights, move, slack, other)
        before = weights @ slack
        after = (weights + length * move) @ (slack + length * other)
        # less of the second-order term where a bound is near, because steps may cycle otherwise
        second_order = (2 * length).clamp_max(1.0) * move * other
        aim = aim - second_order + (after / before) ** 3 * before / len(self.y)
        move, lift, other = system.step(off_dual, off_sum, aim)
        if not bool(torch.isfinite(other).all() & torch.isfinite(move).all()):
            return False
        length = _INWARD * _room(weights, move, slack, other)
        self.weights, self._level = weights + length * move, self._level + length * lift
        self.slack = slack + length * other
        return True


def _graded(y: Tensor, weights: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, float, float]:
    """Return the slope (n,) of half the squared length, that square, and its gap."""
    residual = y.T @ weights
    slope, squared = y @ residual, residual @ residual
    gap = squared - sum(part.min() for part in slope.split(sizes))
    return slope, float(squared), float(gap)


class _System:
    """Newton's equations at one iterate: one factorisation, several right-hand sides."""

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

        The moves remove the residuals `off_dual` (n,) of slopes less slacks and levels, and
        `off_sum` of the sums of the groups. `aim` (n,) is the first-order change of the products
        of weights and slacks.
        """
        free = self._solve((aim / self._weights - off_dual)[:, None])[:, 0]
        # the caller checks for numbers that are not finite
        lift, _ = torch.linalg.solve_ex(self._small, off_sum - self._member.T @ free)
        move = free + self._sums @ lift
        return move, lift, (aim - self._slack * move) / self._weights


def _room(weights: Tensor, move: Tensor, slack: Tensor, other: Tensor) -> Tensor:
    """Return the largest step length, at most 1, at which no bound is crossed."""
    both, direction = torch.cat([weights, slack]), torch.cat([move, other])
    return torch.where(direction < 0, -both / direction, torch.inf).min().clamp_max(1.0)


def _onto_zero(
    both: Tensor, weights: Tensor, ratio: Tensor, system: Tensor, width: int
) -> Tensor | None:
    """Return weights whose combination is 0, close to `weights` in this metric, or None.

    This detects that hulls meet many steps before the method converges there. Points whose weight
    would be negative are dropped and the rest is solved again: a pixel that is on in only one
    image forces the weight of that image to 0. The columns of `both` are those of the points and
    of their groups.
    """
    aim = _zero(both, width)
    close = float(torch.linalg.vector_norm(aim - both.T @ weights)) <= _CLOSE
    start, left = weights, len(both) if close else _MAX_DROPPED * len(both)
    system = system.clone()
    for _ in range(_TRIES):
        diagonal = system.diagonal()
        diagonal.copy_(torch.where(diagonal > 0, diagonal * (1 + _RIDGE), 1.0))
        factor, info = torch.linalg.cholesky_ex(system)
        if int(info):
            return None
        solution = start
        for _ in range(_REFINEMENTS):
            turn = torch.cholesky_solve((aim - both.T @ solution)[:, None], factor)[:, 0]
            solution = solution + ratio * (both @ turn)
        out = solution < 0
        if not bool(out.any()):
            return solution if _reaches(both, solution, aim) else None
        left -= int(out.sum())
        if left < 0:
            return None
        start, ratio = torch.where(out, 0.0, start), torch.where(out, 0.0, ratio)
        system = both.T @ (ratio[:, None] * both)
    return None


def _on_face(y: Tensor, weights: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the weights of the shortest combination of the heaviest points, if they are better.

    Where 0 lies on the border of the reachable set, as where hulls touch, all other weights tend
    to 0 together with their slacks, and no step separates them.
    """
    best, (_, squared, smallest_gap) = weights, _graded(y, weights, sizes)
    for bound in (squared**0.25, *_SMALL_WEIGHTS):
        result = weights
        for _ in range(_TRIES):
            result = _shortest(y, result, result > bound, sizes)
            if bool((result >= 0).all() | ~torch.isfinite(result).all()):
                break
            bound = 0.0
        _, _, gap = _graded(y, result, sizes)
        if bool((result >= 0).all()) and gap < smallest_gap:
            best, smallest_gap = result, gap
    return best


def _shortest(y: Tensor, weights: Tensor, keep: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the shortest combination of the `keep` points (n,), of any sign, near `weights`."""
    start = torch.where(keep, weights, 0.0)
    parts = start.split(sizes)
    if not all(bool((part > 0).any()) for part in parts):
        return weights
    start = torch.cat([part / part.sum() for part in parts])
    heaviest = [part.argmax() for part in parts]
    away = torch.cat([part - part[k] for part, k in zip(y.split(sizes), heaviest, strict=True)])
    # the nearest of all solutions, because the points may span fewer dimensions
    turn = torch.zeros_like(start)
    turn[keep] = torch.linalg.lstsq(away[keep].T, -(y.T @ start)[:, None], driver="gelsd").solution[
        :, 0
    ]
    result = list((start + turn).split(sizes))
    for part, k in zip(result, heaviest, strict=True):
        part[k] += 1 - part.sum()
    return torch.cat(result)


def _zero(both: Tensor, width: int) -> Tensor:
    """Return the target of the columns of `both`: 0 in those of points, 1 in those of groups."""
    return (torch.arange(both.shape[1], device=both.device) >= width).to(both)


def _reaches(both: Tensor, weights: Tensor, aim: Tensor) -> bool:
    """Return whether `weights` are nonnegative and give `aim` to within rounding."""
    off = torch.linalg.vector_norm(aim - both.T @ weights)
    return bool((weights >= 0).all() & (off <= 10 * _ZERO))


def _without_small(
    y: Tensor, weights: Tensor, slack: Tensor, sizes: tuple[int, ...], tolerance: float
) -> Tensor:
    """Return `weights` without those below their slack, where the tolerance is still met."""
    large = torch.where(weights > slack, weights, 0.0)
    large = torch.cat([part / part.sum() for part in large.split(sizes)])
    _, squared, gap = _graded(y, large, sizes)
    return large if gap <= tolerance * squared else weights


@final
@dataclass(frozen=True, slots=True)
class InteriorPoint(HullSolver):
    """Solve each row on all points at once: 20 to 40 steps, whatever the support.

    A step costs a matrix product of n by d by d numbers. Two hulls are n + m points, not n m
    differences, so this is the solver of choice for :func:`fsboundary.hulls.hull_separation` in
    hundreds of dimensions; for many rows in one hull it is slow. Inside a hull all points carry
    weight.

    Parameters
    ----------
    max_elements : int
        Largest number of rows times width that is accepted; 2**28 numbers are 2 GiB.
    """

    max_elements: int = 2**28

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_integers(self, max_elements=self.max_elements)

    def prepare(self, points: PointSet) -> tuple[tuple[int, ...], Tensor]:
        """Return the sizes of the hulls and all points (n,d), those of a second hull negative."""
        sides = points.sides if isinstance(points, DifferenceSet) else (points,)
        parts = [torch.from_numpy(all_points(side, self.max_elements)) for side in sides]
        rows = parts[0]
        if len(parts) > 1:
            # a common shift changes no difference, but it does change the rounding
            middle = rows.mean(dim=0)
            rows = torch.cat([rows - middle, middle - parts[1]])
        return tuple(len(part) for part in parts), rows

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

        def solve(query: Array, counted: NDArray[np.intp] | None) -> tuple[Array, int]:
            shifted = points.clone() if counted is None else points[counted]
            groups = sizes if counted is None else (len(counted),)
            shifted[: groups[0]] -= torch.from_numpy(query)
            weights, steps = shortest_weights(
                shifted, groups, tolerance=SAFETY_FACTOR * tolerance, max_steps=max_steps
            )
            return weights.numpy(), steps

        if len(sizes) == 1:
            return solve_rows(queries, exclude, len(points), solve)
        answers = []
        for query in queries.cpu().numpy():
            weights, steps = solve(query, None)
            answers.append((*_differences(weights, sizes[0]), steps))
        return pack_supports(queries, answers)


def _differences(weights: Array, rows: int) -> tuple[NDArray[np.intp], Array]:
    """Return differences (S,) and weights that sum to those of both sides; the first has `rows`."""
    # the north-west corner rule of transport problems
    ends = [np.cumsum(part) for part in (weights[:rows], weights[rows:])]
    ends = [end / end[-1] for end in ends]
    cuts = np.unique(np.concatenate(ends))
    cuts = cuts[cuts > 0]
    shared = np.diff(cuts, prepend=0.0)
    middle = cuts - shared / 2
    one, other = (np.minimum(np.searchsorted(end, middle), len(end) - 1) for end in ends)
    return one * (len(weights) - rows) + other, shared
