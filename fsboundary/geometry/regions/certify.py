"""What a proposed centre and proposed multipliers prove of a ball program, in float64.

Rounding model (Higham, section 3.1), as in :mod:`fsboundary.geometry.flips.bounds`: with
γ = dot_error(8 f + 2 M + 64), every sum below is within γ times the sum of its absolute terms, plus
γ LOST for what underflows. The rows a_m are differences rounded once, which γ covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fsboundary.geometry.exact_arithmetic import correction_bound
from fsboundary.geometry.linear_programs import Array
from fsboundary.geometry.regions.ball_programs import LOST, BallProgram
from fsboundary.geometry.regions.ball_proposals import Ball

_CLEAR = 1e3
"""A face's multiplier this many times the residual keeps its sign when it takes the residual up,
and so does a residual this many times its error."""


def ball_radius(program: BallProgram, z: Array) -> float:
    """Return a lower bound of the largest radius, from a point; not above 0 proves nothing.

    A point off the tie by t stands for its projection, at a distance of δ <= |t| / |tie| plus
    rounding: a slack changes by at most |a_m| δ on the way, a face by at most |n_q| δ.

    Parameters
    ----------
    z : array (f,)
        Inside the faces.
    """
    gamma = program.gamma
    values, doubt = _slacks(program, z)
    off, along = _off_tie(program, *_tie_value(program, z))
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


def grows_without_end(program: BallProgram, direction: Array) -> bool:
    """Whether every slack strictly grows along `direction`, which proves a radius of +inf.

    It does so only together with one interior point. The direction stands for its projection on
    the tie's plane.
    """
    gamma = program.gamma
    if not np.isfinite(direction).all():
        return False
    length = np.abs(direction)
    error = gamma * (np.abs(program.tie) @ length + LOST)
    off, along = _off_tie(program, float(program.tie @ direction), float(error))
    doubt = gamma * (np.abs(program.rows) @ length + LOST * (1 + length.sum()))
    rising = program.rows @ direction - doubt - program.size * off
    drift = along * off
    down, up = np.isfinite(program.lower), np.isfinite(program.upper)
    inward = (direction[down] > drift[down]).all() and (-direction[up] > drift[up]).all()
    return bool((rising > 0).all() and inward)


def radius_bound(program: BallProgram, ball: Ball) -> float:
    """Return an upper bound of the largest radius from multipliers >= 0; +inf proves nothing.

    With D = Σ μ p + Σ (ν + ν') p and ρ = Aᵀμ + τ tie + ν - ν', every feasible (z, r) satisfies
    ``r D <= S + ρ.(z - z0)``, where S sums the slacks at z0 times their multipliers. ρ.(z - z0)
    is at most its maximum over the faces. Where there is no face, :mod:`exact_balance` shows that
    ρ_q is 0 for exact multipliers near by.
    """
    balance = _balanced(program, ball)
    return np.inf if balance is None else _weak_duality(program, ball, balance)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Balance:
    """Multipliers of the faces, and what may be left of ρ.

    Attributes
    ----------
    low, high : array (f,)
    residual, error : array (f,)
        ρ, and a bound of its error.
    moved : float
        Bounds the Euclidean distance from μ and τ to the multipliers that are meant.
    """

    low: Array
    high: Array
    residual: Array
    error: Array
    moved: float


def _residual(program: BallProgram, ball: Ball) -> tuple[Array, Array]:
    """Return Aᵀμ + τ tie and a bound of the error of ρ."""
    mu, tau = ball.multipliers, ball.tie
    u = mu @ program.rows + tau * program.tie
    size = mu @ np.abs(program.rows) + abs(tau) * np.abs(program.tie) + ball.low + ball.high
    return u, program.gamma * (size + LOST)


def _balanced(program: BallProgram, ball: Ball) -> _Balance | None:
    """Return multipliers with which ρ leaves z nowhere to go, or None."""
    u, error = _residual(program, ball)
    low, high, used = ball.low, ball.high, ball.multipliers > 0
    has_low, has_high = np.isfinite(program.lower), np.isfinite(program.upper)
    left = u + low - high
    clear = low + high > _CLEAR * (np.abs(left) + error)
    towards = np.where(has_low, -left, left) > _CLEAR * error
    taken_up = (has_low & has_high) | ((has_low | has_high) & (clear | towards))
    rows = np.vstack([program.rows[used], program.tie[None]])
    # elsewhere ρ is 0 because nothing was added
    touched = (rows != 0).any(axis=0) | (low + high > 0)
    exact, entered = ~taken_up & touched, taken_up & touched
    # no face shares the balance there, so that it depends on the rows alone
    low, high, left = np.where(exact, [0 * low, 0 * high, u], [low, high, left])
    moved = correction_bound(rows[:, exact].T, left[exact], error[exact])
    if np.isinf(moved):
        solved = exact & ~program.dependent(used, exact)
        moved = correction_bound(rows[:, solved].T, left[solved], error[solved])
    if not moved <= ball.multipliers[used].min(initial=np.inf) or np.isinf(moved):
        return None
    error = error + moved * np.linalg.norm(rows, axis=0) * (1 + program.gamma)
    # a face gives way until the sign of ρ_q is sure: then the face itself is its maximum
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


def _weak_duality(program: BallProgram, ball: Ball, balance: _Balance) -> float:
    """Return the bound of the radius that the multipliers give, raised by its rounding."""
    gamma, z, mu, tau = program.gamma, ball.centre, ball.multipliers, ball.tie
    low, high, moved, used = balance.low, balance.high, balance.moved, mu > 0
    values, doubt = _slacks(program, z)
    tie_value, tie_error = _tie_value(program, z)
    has_low, has_high = np.isfinite(program.lower), np.isfinite(program.upper)
    # where there is no face ρ_q is 0, or of the sign for which the other face is the maximum
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
    doubts += moved * tie_error + gamma * (np.abs(terms).sum() + LOST)
    total = terms.sum() + doubts * (1 + gamma)
    faces = low + high
    weight = mu @ program.norm + faces @ program.face_norm
    slop = mu @ program.norm_error + faces @ program.face_error
    slop += moved * np.linalg.norm((program.norm + program.norm_error)[used])
    slop = slop * (1 + gamma) + gamma * (weight + LOST)
    divisor = weight - slop if total >= 0 else weight + slop
    if not (np.isfinite(total) and np.isfinite(divisor) and divisor > 0):
        return np.inf
    bound = total / divisor
    return float(bound + gamma * abs(bound))


def _slacks(program: BallProgram, z: Array) -> tuple[Array, Array]:
    """Return the slacks (M,) at `z` and a bound of their errors."""
    length = np.abs(z)
    size = np.abs(program.rows) @ length + np.abs(program.offset)
    error = program.gamma * (size + LOST * (1 + length.sum()))
    return program.rows @ z + program.offset, error + program.offset_error * (1 + program.gamma)


def _tie_value(program: BallProgram, z: Array) -> tuple[float, float]:
    """Return the tie's value at `z` and a bound of its error, 0 for a region."""
    if program.tie_norm == 0:
        return 0.0, 0.0
    length = np.abs(z)
    size = np.abs(program.tie) @ length + abs(program.tie_offset)
    error = program.gamma * (size + LOST * (1 + length.sum()))
    error += program.tie_error * (1 + program.gamma)
    return float(program.tie @ z + program.tie_offset), float(error)


def _off_tie(program: BallProgram, value: float, error: float) -> tuple[float, Array]:
    """Return a bound of the distance to the tie, and of |n_q| for each feature."""
    if program.tie_norm == 0:
        return 0.0, np.zeros_like(program.tie)
    off = (abs(value) + error) / (program.tie_norm * (1 - program.gamma))
    return off, np.abs(program.tie) / program.tie_norm * (1 + program.gamma)


def _quotients(slack: Array, norm: Array) -> Array:
    """Return ``slack / norm``; what is not positive stays so."""
    with np.errstate(divide="ignore", over="ignore"):  # a norm of 0 bounds nothing
        return np.where(slack > 0, slack / norm, np.where(np.isnan(slack), np.nan, -1.0))
