"""An independent checker of guaranteed balls, and of the choice of the nearest class.

No other class begins before its own tie with the source, so the largest ball that keeps the class
reaches to the nearest tie in the domain: K - 1 problems with one constraint, solved here by
sorting breakpoints, in longdouble and, where the answer looks false, in fractions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fsboundary import Status
from support.flips.case import Case
from support.flips.checker import Fault, check_sources
from support.numbers import (
    Array,
    clip,
    halfspace_distance_linf,
    halfspace_distance_squared,
    lift,
)

Norm = Literal["l2", "linf"]


def tie_distances(
    case: Case, rows: Array, source: Array, norm: Norm, exact: bool, both_sides: bool
) -> Array:
    """Return the distance (P,K) to where each class is not below, squared for "l2".

    +inf where the class cannot be reached and at the source. With `both_sides` to the tie itself,
    also for rows on the other class's side.
    """
    z = lift(case.features.astype(np.float64)[rows], exact)
    w, b = lift(case.weight, exact), lift(case.bias, exact)
    count, k = len(rows), len(b)
    u = (w[None, :, :] - w[source][:, None, :]).reshape(count * k, -1)
    h = (b[None, :] - b[source][:, None]).reshape(-1)
    low, high = (np.broadcast_to(lift(v, exact), u.shape) for v in case.limits())
    start = np.repeat(z, k, axis=0)
    if both_sides:
        flipped = (u * start).sum(axis=1) + h > 0
        u, h = np.where(flipped[:, None], -u, u), np.where(flipped, -h, h)
    solve = halfspace_distance_squared if norm == "l2" else halfspace_distance_linf
    value, none = solve(u, h, start, low, high)
    value = np.where(none, np.inf, value).reshape(count, k)
    value[np.arange(count), source] = np.inf
    return value


def nearest(
    case: Case, rows: Array, source: Array, norm: Norm, exact: bool, both_sides: bool = False
) -> Array:
    """Return the distance (P,) of the nearest other class, squared for "l2"."""
    step = max(1, 300_000 // case.weight.size)
    parts = [
        tie_distances(case, rows[s : s + step], source[s : s + step], norm, exact, both_sides).min(
            axis=1
        )
        for s in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.longdouble)


def _too_far(
    case: Case, rows: Array, source: Array, bound: Array, norm: Norm, both_sides: bool = False
) -> Array:
    """Return where `bound` (P,) passes the true distance, in the end without rounding."""
    squared = norm == "l2"

    def passes(index: Array, exact: bool) -> Array:
        truth = nearest(case, rows[index], source[index], norm, exact, both_sides)
        endless = np.isinf(bound[index])
        value = lift(np.where(endless, 0.0, bound[index]), exact)
        value = value * value if squared else value
        reachable = truth < np.inf
        return np.where(endless, reachable, reachable & (value > truth))

    suspects = np.flatnonzero(passes(np.arange(len(rows)), False) | np.isinf(bound))
    return np.array([p for p in suspects if passes(np.array([p]), True)[0]], dtype=int)


def check_nearest(case: Case, answer: dict[str, Array]) -> list[Fault]:
    """Return the false bounds and wrong choices of an answer to "nearest"."""
    status, bound, distance = (answer[n][:, 0] for n in ("status", "lower_bound", "distance"))
    asked = np.isin(
        status, [Status.CONVERGED, Status.INFEASIBLE, Status.MAX_STEPS, Status.INACCURATE]
    )
    rows = np.flatnonzero(asked)
    source = answer["source"][rows]
    false = rows[_too_far(case, rows, source, bound[rows], "l2", True)]
    return [
        Fault("nearest", int(r), 0, f"status={status[r]} bound={bound[r]!r} dist={distance[r]!r}")
        for r in false
    ]


def check_balls(case: Case, answer: dict[str, Array], norm: Norm) -> list[Fault]:
    """Return every false radius and wrong status of guaranteed balls."""
    z = case.features.astype(np.float64)
    low, high = case.limits()
    finite = np.isfinite(z).all(axis=1)
    with np.errstate(invalid="ignore"):  # NaN rows compare false, as they should
        inside = ((z >= low) & (z <= high)).all(axis=1)
    radius, status, active = (answer[n] for n in ("radius", "status", "active_class"))
    wanted = np.where(finite, np.where(inside, -1, Status.OUTSIDE_DOMAIN), Status.NOT_FINITE)
    failed = wanted != -1
    bad = failed & ((status != wanted) | ~np.isnan(radius) | (active != -1))
    endless = np.isposinf(radius)
    bad |= ~failed & (endless != (status == Status.UNBOUNDED))
    bad |= ~failed & ~endless & (status == Status.CONVERGED) & (np.isnan(radius) | (radius < 0))
    bad |= ~failed & endless & (active != -1)
    faults = [
        Fault("ball status", r, -1, f"{status[r]} {radius[r]!r}")
        for r in np.flatnonzero(bad).tolist()
    ]
    rows = np.flatnonzero(~failed & ~np.isnan(radius))
    source = answer["source"]
    faults += check_sources(case, source, finite)
    source = source[rows]
    false = rows[_too_far(case, rows, source, radius[rows], norm)]
    return faults + [
        Fault(f"{norm} radius", int(r), -1, f"status={status[r]} radius={radius[r]!r}")
        for r in false
    ]


def attack(
    case: Case, answer: dict[str, Array], norm: Norm, count: int, generator: np.random.Generator
) -> list[Fault]:
    """Return the balls in which some point of the domain has another class.

    Tries random directions, corners of the ball, and the way to each other class.
    """
    radius = answer["radius"]
    rows = np.flatnonzero(np.isfinite(radius) & (radius > 0))
    if not len(rows):
        return []
    source = answer["source"][rows]
    z = lift(case.features.astype(np.float64)[rows], False)
    w, b = lift(case.weight, False), lift(case.bias, False)
    low, high = (lift(v, False) for v in case.limits())
    d = z.shape[1]
    random = generator.standard_normal((len(rows), count, d)).astype(np.longdouble)
    towards = w[None, :, :] - w[source][:, None, :]
    ways = np.concatenate([random, np.sign(random), towards, np.sign(towards)], axis=1)
    size = abs(ways).max(axis=2) if norm == "linf" else np.sqrt((ways * ways).sum(axis=2))
    reach = lift(radius[rows], False)[:, None, None] * (1 - lift(np.array(1e-6), False))
    points = z[:, None, :] + reach * ways / np.where(size > 0, size, 1)[..., None]
    points = clip(points, low, high)
    logits = points @ w.T + b
    noise = (d + 2) * 2.0**-63 * (abs(points) @ abs(w).T + abs(b))
    index = np.broadcast_to(source[:, None, None], (*ways.shape[:2], 1))
    own = np.take_along_axis(logits + noise, index, axis=2)
    other = logits - noise
    np.put_along_axis(other, index, -np.inf, axis=2)
    lost = (other > own).any(axis=(1, 2))
    return [Fault(f"{norm} attack", int(r), -1, f"radius={radius[r]!r}") for r in rows[lost]]
