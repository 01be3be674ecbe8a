"""Certificates of regions, from whatever numbers a solver proposes.

Radii of balls from any centre and any multipliers, boundedness from directions and weights,
interior points and emptiness of polyhedra from points and multipliers.

Rounding model (Higham, section 3.1), as in :mod:`fsboundary.geometry.flips.bounds`: with
γ = dot_error(8 f + 2 M + 64), every sum below is within γ times the sum of its absolute terms, plus
γ UNDERFLOW for underflow. The rows a_m are differences rounded once, which γ covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_FRACTION, FLIP_RTOL, dot_error
from fsboundary.geometry.exact_arithmetic import (
    MAX_EXACT_WORK,
    Array,
    correction_bound,
    dependent_columns,
)
from fsboundary.geometry.norms import TINY, lengths
from fsboundary.geometry.regions.arrangement import Index, Mask
from fsboundary.geometry.regions.ball_programs import UNDERFLOW, BallProgram, BallProposal

_CLEAR = 1e3
"""A face's multiplier this many times the residual keeps its sign when it absorbs the residual,
and so does a residual this many times its error."""


def ball_radius(program: BallProgram, z: Float64[Array, " f"]) -> float:
    """Return a lower bound of the largest radius from a point; if not above 0 it proves nothing.

    A point off the tie by t represents its projection, at a distance of δ <= |t| / |tie| plus
    rounding: a slack changes by at most |a_m| δ between the two, a face by at most |n_q| δ.

    Parameters
    ----------
    program : BallProgram
    z : array (f,)
        Point inside the faces.
    """
    gamma = program.gamma
    values, doubt = _slacks(program, z)
    off, along = _tie_distance(program, *_tie_value(program, z))
    radii = [
        _quotients(values - doubt - program.size * off, program.norm + program.norm_error),
    ]
    for limit, sign in ((program.lower, 1.0), (program.upper, -1.0)):
        has = np.isfinite(limit)
        # the difference of two float64 numbers is rounded once
        slack = sign * (z[has] - limit[has]) * (1 - gamma) - along[has] * off
        radii.append(_quotients(slack, program.face_norm[has] + program.face_error[has]))
    every = np.concatenate(radii)
    if np.isnan(every).any() or not np.isfinite(z).all():
        return -np.inf
    return float(every.min(initial=np.inf)) * (1 - gamma)


def proves_unbounded(program: BallProgram, direction: Float64[Array, " f"]) -> bool:
    """Return whether every slack strictly grows along `direction`.

    Together with one interior point this proves a radius of +inf. The direction represents its
    projection on the tie's plane.
    """
    gamma = program.gamma
    if not np.isfinite(direction).all():
        return False
    length = np.abs(direction)
    error = gamma * (np.abs(program.tie) @ length + UNDERFLOW)
    off, along = _tie_distance(program, float(program.tie @ direction), float(error))
    doubt = gamma * (np.abs(program.rows) @ length + UNDERFLOW * (1 + length.sum()))
    rising = program.rows @ direction - doubt - program.size * off
    drift = along * off
    down, up = np.isfinite(program.lower), np.isfinite(program.upper)
    inward = (direction[down] > drift[down]).all() and (-direction[up] > drift[up]).all()
    return bool((rising > 0).all() and inward)


def radius_bound(program: BallProgram, ball: BallProposal) -> float:
    """Return an upper bound of the largest radius from multipliers >= 0; +inf proves nothing.

    With D = Σ μ p + Σ (ν + ν') p and ρ = Aᵀμ + τ tie + ν - ν', every feasible (z, r) satisfies
    ``r D <= S + ρ.(z - z0)``, where S sums the slacks at z0 times their multipliers. ρ.(z - z0)
    is at most its maximum over the faces. Where there is no face,
    :mod:`fsboundary.geometry.exact_arithmetic` shows that ρ_q is 0 for exact multipliers nearby.
    """
    if not _is_admissible(program, ball):
        return np.inf
    balance = _balance_multipliers(program, ball)
    return np.inf if balance is None else _weak_duality(program, ball, balance)


def _is_admissible(program: BallProgram, ball: BallProposal) -> bool:
    """Return whether the multipliers are finite and >= 0, and 0 where there is no face."""
    every = np.concatenate([ball.multipliers, ball.low, ball.high])
    absent = np.concatenate(
        [ball.low[~np.isfinite(program.lower)], ball.high[~np.isfinite(program.upper)]]
    )
    others = np.append(ball.centre, ball.tie)
    # NaN compares false
    return bool((every >= 0).all() and np.isfinite(every).all() and np.isfinite(others).all()) and (
        not absent.any()
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Balance:
    """Multipliers of the faces, and the remaining residual ρ.

    Attributes
    ----------
    low, high : array (f,)
    residual, error : array (f,)
        Residual ρ, and a bound of its error.
    moved : float
        Upper bound of the Euclidean distance from μ and τ to the exact multipliers.
    """

    low: Array
    high: Array
    residual: Array
    error: Array
    moved: float


def _residual(program: BallProgram, ball: BallProposal) -> tuple[Array, Array]:
    """Return Aᵀμ + τ tie and a bound of the error of ρ."""
    mu, tau = ball.multipliers, ball.tie
    u = mu @ program.rows + tau * program.tie
    size = mu @ np.abs(program.rows) + abs(tau) * np.abs(program.tie) + ball.low + ball.high
    return u, program.gamma * (size + UNDERFLOW)


def _balance_multipliers(program: BallProgram, ball: BallProposal) -> _Balance | None:
    """Return multipliers for which ρ.(z - z0) has a maximum over the faces, or None."""
    u, error = _residual(program, ball)
    low, high, used = ball.low, ball.high, ball.multipliers > 0
    has_low, has_high = np.isfinite(program.lower), np.isfinite(program.upper)
    left = u + low - high
    clear = low + high > _CLEAR * (np.abs(left) + error)
    towards = np.where(has_low, -left, left) > _CLEAR * error
    taken_up = (has_low & has_high) | ((has_low | has_high) & (clear | towards))
    rows = np.vstack([program.rows[used], program.tie[None]])
    # elsewhere ρ is 0 because no term was added
    touched = (rows != 0).any(axis=0) | (low + high > 0)
    exact, entered = ~taken_up & touched, taken_up & touched
    # no face takes part in the balance there, so it depends on the rows only
    low, high, left = np.where(exact, [0 * low, 0 * high, u], [low, high, left])
    moved = correction_bound(rows[:, exact].T, left[exact], error[exact])
    if np.isinf(moved):
        solved = exact & ~program.dependent_features(used, exact)
        moved = correction_bound(rows[:, solved].T, left[solved], error[solved])
    if not moved <= ball.multipliers[used].min(initial=np.inf) or np.isinf(moved):
        return None
    error = error + moved * np.linalg.norm(rows, axis=0) * (1 + program.gamma)
    # a face's multiplier decreases until the sign of ρ_q is certain: the face is then the maximum
    over, under = np.maximum(u + low + 2 * error, 0.0), np.maximum(high - u + 2 * error, 0.0)
    low = np.where(has_high | exact, low, np.maximum(low - over, 0.0))
    high = np.where(has_low | exact, high, np.maximum(high - under, 0.0))
    residual = np.where(exact, 0.0, u + low - high)
    error = np.where(exact, 0.0, error)
    if ((residual + error)[~has_high & entered] > 0).any():
        return None
    if ((residual - error)[~has_low & entered] < 0).any():
        return None
    return _Balance(low=low, high=high, residual=residual, error=error, moved=moved)


def _weak_duality(program: BallProgram, ball: BallProposal, balance: _Balance) -> float:
    """Return the bound of the radius from the multipliers, raised by its rounding."""
    gamma, z, mu, tau = program.gamma, ball.centre, ball.multipliers, ball.tie
    low, high, moved, used = balance.low, balance.high, balance.moved, mu > 0
    values, doubt = _slacks(program, z)
    tie_value, tie_error = _tie_value(program, z)
    has_low, has_high = np.isfinite(program.lower), np.isfinite(program.upper)
    # where there is no face ρ_q is 0, or has the sign for which the other face is the maximum
    down = np.where(has_low, program.lower - z, 0.0)
    up = np.where(has_high, program.upper - z, 0.0)
    terms = np.concatenate(
        [
            mu * values,
            [tau * tie_value],
            -low[has_low] * down[has_low],
            high[has_high] * up[has_high],
            np.maximum(balance.residual * down, balance.residual * up),
        ]
    )
    doubts = mu @ doubt + abs(tau) * tie_error
    doubts += balance.error @ np.maximum(np.abs(down), np.abs(up))
    doubts += moved * np.linalg.norm(np.append((np.abs(values) + doubt)[used], tie_value))
    doubts += moved * tie_error + gamma * (np.abs(terms).sum() + UNDERFLOW)
    total = terms.sum() + doubts * (1 + gamma)
    faces = low + high
    weight = mu @ program.norm + faces @ program.face_norm
    slop = mu @ program.norm_error + faces @ program.face_error
    slop += moved * np.linalg.norm((program.norm + program.norm_error)[used])
    slop = slop * (1 + gamma) + gamma * (weight + UNDERFLOW)
    divisor = weight - slop if total >= 0 else weight + slop
    if not (np.isfinite(total) and np.isfinite(divisor) and divisor > 0):
        return np.inf
    bound = total / divisor
    return float(bound + gamma * abs(bound))


def _slacks(program: BallProgram, z: Array) -> tuple[Array, Array]:
    """Return the slacks (M,) at `z` and a bound of their errors."""
    length = np.abs(z)
    size = np.abs(program.rows) @ length + np.abs(program.offset)
    error = program.gamma * (size + UNDERFLOW * (1 + length.sum()))
    return program.rows @ z + program.offset, error + program.offset_error * (1 + program.gamma)


def _tie_value(program: BallProgram, z: Array) -> tuple[float, float]:
    """Return the tie's value at `z` and a bound of its error, 0 for a region."""
    if program.tie_norm == 0:
        return 0.0, 0.0
    length = np.abs(z)
    size = np.abs(program.tie) @ length + abs(program.tie_offset)
    error = program.gamma * (size + UNDERFLOW * (1 + length.sum()))
    error += program.tie_error * (1 + program.gamma)
    return float(program.tie @ z + program.tie_offset), float(error)


def _tie_distance(program: BallProgram, value: float, error: float) -> tuple[float, Array]:
    """Return a bound of the distance to the tie, and of |n_q| for each feature."""
    if program.tie_norm == 0:
        return 0.0, np.zeros_like(program.tie)
    off = (abs(value) + error) / (program.tie_norm * (1 - program.gamma))
    return off, np.abs(program.tie) / program.tie_norm * (1 + program.gamma)


def _quotients(slack: Array, norm: Array) -> Array:
    """Return ``slack / norm``, -1 where the slack is not positive and NaN where it is NaN."""
    with np.errstate(divide="ignore", over="ignore"):  # a norm of 0 bounds nothing
        return np.where(slack > 0, slack / norm, np.where(np.isnan(slack), np.nan, -1.0))


def ball_status(lower: float, upper: float, centre: Float64[Array, " f"]) -> Status:
    """Return what proved bounds of the largest radius decide.

    CONVERGED where they meet within tolerance, INFEASIBLE where no ball has a positive radius,
    UNDECIDED where none is proved, else INACCURATE.

    Parameters
    ----------
    lower, upper : float
        Bounds from :func:`ball_radius` and :func:`radius_bound`.
    centre : array (f,)
        Centre of the ball of radius `lower`.
    """
    if upper <= 0:
        return Status.INFEASIBLE
    if not lower > 0:
        return Status.UNDECIDED
    scale = float(np.linalg.norm(centre)) + lower
    allowed = max(ATOL_FRACTION * scale, FLIP_RTOL * lower)
    return Status.CONVERGED if upper - lower <= allowed else Status.INACCURATE


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BallProof:
    """Numbers that prove bounds of the largest ball, for :func:`certify_ball`.

    Attributes
    ----------
    centre : array (f,)
        Centre of a ball; NaN where none was found.
    bound : BallProposal or None
        Multipliers of the upper bound.
    ray : array (f,) or None
        Direction along which balls of any size fit.
    """

    centre: Array
    bound: BallProposal | None
    ray: Array | None


def certify_ball(program: BallProgram, proof: BallProof) -> tuple[Status, float, float]:
    """Return status, lower and upper bound of the largest radius that `proof` proves."""
    lower, upper = ball_radius(program, proof.centre), np.inf
    if not lower > 0:
        lower = -np.inf
    elif (proof.ray is not None and proves_unbounded(program, proof.ray)) or is_whole(program):
        return Status.UNBOUNDED, np.inf, np.inf
    if proof.bound is not None:
        upper = radius_bound(program, proof.bound)
    return ball_status(lower, upper, proof.centre), lower, upper


def is_whole(program: BallProgram) -> bool:
    """Return whether `program` has neither rows nor faces, so that balls of any size fit."""
    faces = np.isfinite(program.lower) | np.isfinite(program.upper)
    return len(program.rows) == 0 and not faces.any()


def boundedness_status(
    program: BallProgram,
    *,
    direction: Float64[Array, " f"] | None = None,
    weights: Float64[Array, " M"] | None = None,
) -> Status:
    """Return UNBOUNDED where `direction` proves it, CONVERGED where `weights` prove bounded.

    UNDECIDED where neither is a proof.

    Parameters
    ----------
    program : BallProgram
        Program of a region whose interior is known not to be empty.
    direction : array (f,), optional
        A direction in which the region may extend without end.
    weights : array (M,), optional
        Positive weights of the program's rows.
    """
    if direction is not None and _is_recession_direction(program, direction):
        return Status.UNBOUNDED
    if weights is not None and _proves_bounded(program, weights):
        return Status.CONVERGED
    return Status.UNDECIDED


def _is_recession_direction(program: BallProgram, direction: Array) -> bool:
    """Return whether every slack provably grows along `direction`, clipped to meet no face."""
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    g = np.where(low, np.maximum(direction, 0.0), direction)
    g = np.where(high, np.minimum(g, 0.0), g)
    doubt = program.gamma * (np.abs(program.rows) @ np.abs(g) + UNDERFLOW)
    return bool((program.rows @ g > doubt).all())


def open_features(program: BallProgram) -> tuple[Index, Index, Array]:
    """Return the features without faces, those with one, and the sign of that face."""
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    one = np.flatnonzero(low ^ high)
    return np.flatnonzero(~low & ~high), one, np.where(low[one], 1.0, -1.0)


def _proves_bounded(program: BallProgram, weights: Array) -> bool:
    """Return whether the recession cone is provably {0}."""
    free, one, sign = open_features(program)
    gamma, rows = program.gamma, program.rows
    u = weights @ rows
    error = gamma * (weights @ np.abs(rows) + UNDERFLOW)
    moved = correction_bound(rows[:, free].T, u[free], error[free])
    if not moved < weights.min():
        return False
    error = error + moved * np.linalg.norm(rows, axis=0) * (1 + gamma)
    return bool((u[one] * sign + error[one] < 0).all())


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polyhedron:
    """Constraints of a polyhedron; each row and offset is a difference rounded at most once.

    Attributes
    ----------
    rows : Tensor (M, d), float64, on the CPU
    offset : Tensor (M,)
    lower, upper : Tensor (d,)
    exact : bool
        Whether no row was rounded.
    """

    rows: Tensor
    offset: Tensor
    lower: Tensor
    upper: Tensor
    exact: bool = True

    @property
    def free(self) -> Tensor:
        """Features that may vary, (d,), bool."""
        return self.lower < self.upper

    def scale(self, anchor: Tensor) -> float:
        """Return the length of `anchor` (d,) plus the distance of the farthest plane from 0."""
        norm = lengths(self.rows)
        planes = torch.where(norm > 0, self.offset.abs() / norm, 0.0)
        return float(lengths(anchor)) + max(planes.tolist(), default=0.0)

    def strictly_contains(self, x: Tensor) -> bool:
        """Return whether `x` (d,) provably lies in the polyhedron, strictly inside every limit."""
        gamma = dot_error(len(x) + 8)
        value = self.rows @ x + self.offset
        error = gamma * (self.rows.abs() @ x.abs() + self.offset.abs() + 4 * TINY)
        within = torch.where(self.free, (self.lower < x) & (x < self.upper), self.lower == x)
        # NaN and an error that overflowed compare false
        return bool((value > error).all() and within.all() and torch.isfinite(x).all())

    def certifies_empty(self, multipliers: Tensor) -> bool:
        """Return whether `multipliers` (M,), at least 0, prove that the polyhedron is empty.

        Σ λ (a.x + c) is positive in the polyhedron. It is empty if the largest value of this sum
        over the limits is not. Where a feature has no limit on the side to which the sum rises,
        the coefficient must vanish exactly, as it does for exact multipliers nearby
        (:mod:`fsboundary.geometry.exact_arithmetic`).
        """
        lam = multipliers.numpy()
        if not (np.isfinite(lam).all() and (lam >= 0).all()):
            return False
        # multipliers that are rounding only would have to stay positive when they are corrected
        weight = lam * lengths(self.rows).numpy()
        for least in (0.0, _NOISE * weight.max(initial=0.0)):
            used = (lam > 0) & (weight >= least)
            if used.any() and _proves_empty(self, used, lam[used]):
                return True
        return False


_NOISE = 1e-9
"""Multipliers times norms below this fraction of the largest may be rounding."""


def _proves_empty(polyhedron: Polyhedron, used: Mask, lam: Array) -> bool:
    """Return whether the constraints `used`, with positive multipliers, prove emptiness."""
    with np.errstate(all="ignore"):  # what is not finite proves nothing
        scaled = _scale_by_powers(polyhedron, used, lam)
        if scaled is None:
            return False
        rows, offset, lower, upper, lam = scaled
        gamma = dot_error(2 * rows.shape[1] + 4 * len(rows) + 32)
        u = lam @ rows
        error = gamma * (lam @ np.abs(rows) + UNDERFLOW)
        has_low, has_high = np.isfinite(lower), np.isfinite(upper)
        falls = np.where(has_low, -u, u) > _CLEAR * error
        limited = (has_low & has_high) | ((has_low ^ has_high) & falls)
        vanish = ~limited & (rows != 0).any(axis=0)
        moved = correction_bound(rows[:, vanish].T, u[vanish], error[vanish])
        if np.isinf(moved) and polyhedron.exact and rows[:, vanish].size <= MAX_EXACT_WORK:
            table = [[Fraction(v) for v in row] for row in rows[:, vanish].tolist()]
            solved = np.flatnonzero(vanish)[~np.array(dependent_columns(table))]
            moved = correction_bound(rows[:, solved].T, u[solved], error[solved])
        if not moved <= lam.min():
            return False
        error = error + moved * np.linalg.norm(rows, axis=0) * (1 + gamma)
        one = limited & (has_low ^ has_high)
        if (np.where(has_low, u, -u)[one] + error[one] > 0).any():
            return False
        low, high = (
            np.where(has & limited, t, 0.0) for has, t in ((has_low, lower), (has_high, upper))
        )
        rise = np.where(has_low & has_high, np.maximum(u * low, u * high), u * (low + high))
        rise = np.where(limited, rise, 0.0)
        terms = np.concatenate([lam * offset, rise])
        doubt = error @ np.where(limited, np.maximum(np.abs(low), np.abs(high)), 0.0)
        doubt += moved * np.linalg.norm(offset) + gamma * (np.abs(terms).sum() + UNDERFLOW)
        # NaN compares false
        return bool(terms.sum() + doubt * (1 + 2 * gamma) < 0)


def _scale_by_powers(
    polyhedron: Polyhedron, used: Mask, lam: Array
) -> tuple[Array, Array, Array, Array, Array] | None:
    """Return rows, offsets, limits and multipliers, with sizes near 1 of all but the limits.

    None where a number would not stay exact.
    """
    rows, offset = polyhedron.rows.numpy()[used], polyhedron.offset.numpy()[used]
    lower, upper = polyhedron.lower.numpy(), polyhedron.upper.numpy()
    across = np.frexp(np.abs(rows).max(axis=0))[1]
    narrow = np.ldexp(rows, -across)
    down = np.frexp(np.abs(narrow).max(axis=1))[1]
    scaled = np.ldexp(narrow, -down[:, None])
    # and lengths in units of the largest offset
    unit = int(np.frexp(np.abs(np.ldexp(offset, -down)).max())[1])
    right = np.ldexp(offset, -down - unit)
    low, high = np.ldexp(lower, across - unit), np.ldexp(upper, across - unit)
    same = (
        np.array_equal(np.ldexp(np.ldexp(scaled, down[:, None]), across), rows)
        and np.array_equal(np.ldexp(right, down + unit), offset)
        and np.array_equal(np.ldexp(low, unit - across), lower)
        and np.array_equal(np.ldexp(high, unit - across), upper)
    )
    weights = np.ldexp(lam, down)
    weights = weights / weights.max()
    if not (same and np.isfinite(weights).all() and (weights > 0).all()):
        return None
    return scaled, right, low, high, weights
