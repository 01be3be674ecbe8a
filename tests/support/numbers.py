"""The arithmetic of the checker: one code for two kinds of numbers.

Every function here takes arrays of ``numpy.longdouble`` (64-bit mantissa, exponents to 1e4932) or
of ``fractions.Fraction`` and uses sums, products, quotients and comparisons only: no root, so that
the second kind is exact. Infinite domain limits stay floats and only ever enter comparisons.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_as_fraction = np.vectorize(lambda v: Fraction(v) if np.isfinite(v) else v, otypes=[object])


def lift(values: Array, exact: bool) -> Array:
    """Return float64 `values` as fractions or as longdouble; both conversions are exact."""
    if not exact:
        return np.asarray(values, dtype=np.longdouble)
    values = np.asarray(values, dtype=np.float64)
    return _as_fraction(values) if values.size else values.astype(object)


def clip(x: Array, low: Array, high: Array) -> Array:
    """Return the nearest point of the box; limits may be infinite."""
    return np.minimum(np.maximum(x, low), high)


def dual_value(u: Array, at_z: Array, z: Array, low: Array, high: Array) -> Array:
    """Return g (P,) = min over the box of ½|x - z|² - u.(x - z) - at_z."""
    moved = clip(z + u, low, high) - z
    return (moved * moved).sum(axis=1) / 2 - (u * moved).sum(axis=1) - at_z


def room(u: Array, z: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return how far each coordinate can move along the sign of `u`, and where without end."""
    up, down = u > 0, u < 0
    endless = (up & np.isposinf(_floats(high))) | (down & np.isneginf(_floats(low)))
    end = np.where(up, high, low)
    moves = (up | down) & ~endless
    end = np.where(moves, end, z)
    return np.where(moves, abs(end - z), z * 0), endless


def _floats(limits: Array) -> NDArray[np.float64]:
    """Return limits as floats, to see which are infinite; a finite one may overflow nowhere."""
    if limits.dtype != object:
        return np.where(np.isinf(limits), limits, 0).astype(np.float64)
    return np.array([v if isinstance(v, float) else 0.0 for v in limits.ravel()]).reshape(
        limits.shape
    )


def first_crossing(
    weight: Array, breaks: Array, endless: Array, need: Array
) -> tuple[Array, Array]:
    """Return the least t (P,) with Σ weight min(t, breaks) >= need, and where there is none.

    Parameters
    ----------
    weight, breaks : array (P, d), both >= 0
    endless : bool (P, d)
        Where the break is +inf whatever `breaks` says.
    need : array (P,)
    """
    # endless ones last; ties in any order
    order = np.argsort(breaks, axis=1, kind="stable")
    order = np.take_along_axis(
        order, np.argsort(np.take_along_axis(endless, order, 1), axis=1, kind="stable"), 1
    )
    weight, breaks, endless = (np.take_along_axis(a, order, 1) for a in (weight, breaks, endless))
    used = np.where(endless, weight * 0, weight * breaks)
    before = np.cumsum(used, axis=1) - used
    after = np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
    reached = (after > 0) & (endless | (before + breaks * after >= need[:, None]))
    none = ~reached.any(axis=1) & (need > 0)
    index = reached.argmax(axis=1)[:, None]
    missing = need - np.take_along_axis(before, index, 1)[:, 0]
    slope = np.take_along_axis(after, index, 1)[:, 0]
    fine = (need > 0) & ~none
    t = np.where(fine, missing, need * 0) / np.where(fine, slope, slope * 0 + 1)
    return t, none


def halfspace_distance_squared(
    u: Array, h: Array, z: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Return the squared distance (P,) of `z` to {x in the box: u.x + h >= 0}, and where empty."""
    far, endless = room(u, z, low, high)
    size = abs(u)
    breaks = far / np.where(size > 0, size, size * 0 + 1)
    need = -((u * z).sum(axis=1) + h)
    t, none = first_crossing(u * u, breaks, endless, need)
    step = np.where(endless, t[:, None], np.minimum(t[:, None], breaks))
    return (u * u * step * step).sum(axis=1), none


def halfspace_distance_linf(
    u: Array, h: Array, z: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Return the Linf distance (P,) of `z` to {x in the box: u.x + h >= 0}, and where empty."""
    far, endless = room(u, z, low, high)
    need = -((u * z).sum(axis=1) + h)
    return first_crossing(abs(u), far, endless, need)
