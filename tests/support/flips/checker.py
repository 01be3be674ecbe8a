"""An independent checker of flip points: raw inputs and the answer, nothing of the geometry.

Everything is evaluated in longdouble first. What fails there is evaluated again with fractions,
without any rounding, and only what fails then is a fault. Farkas proofs (a bound of +inf) are
always checked with fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsboundary import Status
from support.flips.case import Case
from support.numbers import (
    Array,
    clip,
    dual_value,
    halfspace_distance_squared,
    lift,
)

U = 2.0**-53
TOO_FAR = 10**6
ONE_ULP = 2.0**-51
TINY = 2.0**-1022


@dataclass(frozen=True)
class Fault:
    """A false statement: what kind, of which entry, with the numbers."""

    kind: str
    row: int
    column: int
    detail: str


class _Entries:
    """The P entries of an answer that are finite, inside the domain and not of their own class."""

    def __init__(self, case: Case, answer: dict[str, Array], keep: Array) -> None:
        self.case, self.rows, self.columns = case, *np.nonzero(keep)
        self.source = answer["source"][self.rows]

        def entries(name: str) -> Array:
            return answer[name][self.rows, self.columns]

        self.target, self.status = entries("target"), entries("status")
        self.points, self.distance = entries("points"), entries("distance")
        self.lower_bound, self.gap = entries("lower_bound"), entries("gap")
        self.violation = entries("violation")
        self.active, self.multipliers = entries("active"), entries("multipliers")


def check_flips(case: Case, answer: dict[str, Array]) -> list[Fault]:
    """Return every false statement of `answer` about `case`."""
    faults: list[Fault] = []
    z = case.features.astype(np.float64)
    low, high = case.limits()
    finite = np.isfinite(z).all(axis=1)
    with np.errstate(invalid="ignore"):  # NaN rows compare false, as they should
        inside = ((z >= low) & (z <= high)).all(axis=1)
    source, target, status = (answer[n] for n in ("source", "target", "status"))
    wanted = np.where(finite, np.where(inside, -1, Status.OUTSIDE_DOMAIN), Status.NOT_FINITE)
    wanted = np.broadcast_to(wanted[:, None], target.shape)
    own = (target == source[:, None]) & (wanted == -1)
    wanted = np.where(own, Status.TARGET_IS_SOURCE, wanted)
    usable = wanted == -1
    legal = np.isin(
        status, [Status.CONVERGED, Status.INFEASIBLE, Status.MAX_STEPS, Status.INACCURATE]
    )
    wrong = np.where(usable, ~legal, status != wanted)
    faults += [Fault("status", r, c, f"{status[r, c]}") for r, c in np.argwhere(wrong).tolist()]
    faults += _failed_are_nan(answer)
    faults += check_sources(case, source, finite)
    faults += _targets(case, answer, finite & inside)
    entries = _Entries(case, answer, usable)
    for start in range(0, len(entries.rows), step := max(1, 500_000 // case.weight.size)):
        pick = np.arange(start, min(start + step, len(entries.rows)))
        faults += _layout(entries, pick)
        for check in (_bounds, _recheckable, _converged, _infeasible):
            suspects = pick[check(entries, pick, False)]
            for p in suspects:
                if check(entries, np.array([p]), True)[0]:
                    faults.append(_fault(check.__name__[1:], entries, p))
    return faults


def _fault(kind: str, e: _Entries, p: int) -> Fault:
    detail = (
        f"status={e.status[p]} source={e.source[p]} target={e.target[p]} "
        f"distance={e.distance[p]!r} lower_bound={e.lower_bound[p]!r} "
        f"violation={e.violation[p]!r}"
    )
    return Fault(kind, int(e.rows[p]), int(e.columns[p]), detail)


def _failed_are_nan(answer: dict[str, Array]) -> list[Fault]:
    """A failed entry is NaN; an infeasible one has NaN points and distance +inf."""
    status, bound = answer["status"], answer["lower_bound"]
    done, none = status == Status.CONVERGED, status == Status.INFEASIBLE
    nan = {n: np.isnan(answer[n]) for n in ("distance", "gap", "violation")}
    points = np.isnan(answer["points"])
    bad = done & (points.any(-1) | nan["distance"] | nan["gap"] | nan["violation"])
    bad |= ~done & (~points.all(-1) | ~nan["violation"])
    bad |= ~done & ~none & (~nan["distance"] | ~nan["gap"])
    bad |= none & ~np.isposinf(answer["distance"])
    bad |= np.isnan(bound) | (bound < 0) | (~none & np.isinf(bound))
    return [Fault("nan", r, c, f"status={status[r, c]}") for r, c in np.argwhere(bad).tolist()]


def check_sources(case: Case, source: Array, finite: Array) -> list[Fault]:
    """Return where the source is not the argmax of W z + b, up to the rounding of the logits."""
    faults = [
        Fault("source", r, -1, "not -1") for r in np.flatnonzero(~finite & (source != -1)).tolist()
    ]
    w, b = lift(case.weight, False), lift(case.bias, False)
    z = lift(case.features.astype(np.float64)[finite], False)
    logits = z @ w.T + b
    size = (case.weight.shape[1] + 4) * U * (abs(z) @ abs(w).T + abs(b)) + 2.0**-1060
    fits = (abs(z) @ abs(w).T + abs(b) < 1e308).all(axis=1)  # else float64 has no logits
    chosen = source[finite]
    row = np.arange(len(chosen))
    fine = (logits - size <= (logits + size)[row, chosen][:, None]).all(axis=1)
    bad = (np.flatnonzero(finite)[fits & ~fine]).tolist()
    return faults + [Fault("source", r, -1, f"{source[r]}") for r in bad]


def _targets(case: Case, answer: dict[str, Array], usable: Array) -> list[Fault]:
    """The targets are those asked for; a nearest one is never the source."""
    source, target = answer["source"], answer["target"]
    k = len(case.bias)
    if isinstance(case.targets, str) and case.targets == "all":
        base = np.arange(k - 1)
        wanted = base + (base >= source[:, None])
        bad = (target != wanted).any(axis=1) if k > 1 else np.zeros(len(source), bool)
    elif isinstance(case.targets, str):
        bad = usable & ((target[:, 0] == source) | (target[:, 0] < 0) | (target[:, 0] >= k))
    else:
        bad = (target != case.targets.reshape(target.shape)).any(axis=1)
    return [Fault("target", r, -1, f"{target[r]}") for r in np.flatnonzero(bad).tolist()]


def _layout(e: _Entries, pick: Array) -> list[Fault]:
    """Active classes are valid and unique, multipliers admissible and padded with 0."""
    active, lam = e.active[pick], e.multipliers[pick]
    used = active >= 0
    bad = (active >= len(e.case.bias)) | (active < -1) | ~np.isfinite(lam)
    bad |= used & (active == e.source[pick][:, None])
    bad |= used & (lam < 0) & (active != e.target[pick][:, None])
    bad |= ~used & (lam != 0)
    ordered = np.sort(np.where(used, active, -1 - np.arange(active.shape[1])), axis=1)
    worst = bad.any(axis=1) | (np.diff(ordered, axis=1) == 0).any(axis=1)
    return [_fault("layout", e, p) for p in pick[worst]]


def _rows(e: _Entries, pick: Array, exact: bool, every: bool) -> tuple[Array, Array, Array]:
    """Return constraint rows (P,S,d), offsets (P,S) and multipliers (P,S).

    With `every`, S runs over all classes and the source's slot is a zero row; else over the
    classes that carry a multiplier.
    """
    w, b = lift(e.case.weight, exact), lift(e.case.bias, exact)
    i, j = e.source[pick][:, None], e.target[pick][:, None]
    if every:
        k = np.broadcast_to(np.arange(len(b)), (len(pick), len(b)))
        lam = np.zeros(k.shape)
    else:
        k, lam = e.active[pick], e.multipliers[pick]
        k = np.where(k < 0, i, k)
    first, second = np.where(k == j, i, j), np.where(k == j, j, k)
    second = np.where(k == i, j, second)
    return w[first] - w[second], b[first] - b[second], lift(lam, exact)


def _start(e: _Entries, pick: Array, exact: bool) -> tuple[Array, Array, Array]:
    z = lift(e.case.features.astype(np.float64)[e.rows[pick]], exact)
    low, high = (lift(v, exact) for v in e.case.limits())
    return z, np.broadcast_to(low, z.shape), np.broadcast_to(high, z.shape)


def _combination(e: _Entries, pick: Array, exact: bool) -> tuple[Array, Array]:
    """Return u = Mᵀλ (P,d) and h = λᵀc (P,): every boundary point x has u.x + h >= 0."""
    m, c, lam = _rows(e, pick, exact, every=False)
    return (lam[..., None] * m).sum(axis=1), (lam * c).sum(axis=1)


def _bounds(e: _Entries, pick: Array, exact: bool) -> Array:
    """Where the bound passes the distance to {x in the domain: u.x + h >= 0}."""
    u, h = _combination(e, pick, exact)
    squared, none = halfspace_distance_squared(u, h, *_start(e, pick, exact))
    bound = e.lower_bound[pick]
    endless = np.isinf(bound)
    value = lift(np.where(endless, 0.0, bound), exact)
    # a proof that nothing exists is always checked exactly
    return np.where(endless, ~none | (not exact), ~none & (value * value > squared))


def _recheckable(e: _Entries, pick: Array, exact: bool) -> Array:
    """Where a converged entry's bound is above sqrt(2 g) of its own multipliers."""
    u, h = _combination(e, pick, exact)
    z, low, high = _start(e, pick, exact)
    g = dual_value(u, (u * z).sum(axis=1) + h, z, low, high)
    done = e.status[pick] == Status.CONVERGED
    value = lift(np.where(done, e.lower_bound[pick], 0.0), exact)
    return done & (value > 0) & (value * value > 2 * g)


def _converged(e: _Entries, pick: Array, exact: bool) -> Array:
    """Where a converged point misses the distance, the constraints or the tolerance it claims."""
    done = e.status[pick] == Status.CONVERGED
    bad = np.zeros(len(pick), dtype=bool)
    pick = pick[done]
    if not len(pick):
        return bad
    z, low, high = _start(e, pick, exact)
    x = lift(e.points[pick], exact)
    distance, bound, gap, violation = (
        lift(getattr(e, n)[pick], exact) for n in ("distance", "lower_bound", "gap", "violation")
    )
    length = ((x - z) * (x - z)).sum(axis=1)
    digits = 1 + lift(np.array((2 * z.shape[1] + 8) * U), exact)
    wrong = (length > (distance * digits) ** 2) | (distance**2 > length * digits**2)
    start, end = _at_least_norm(z), _at_least_norm(x)
    atol = np.maximum((start + end) / 10**9, lift(np.array(2.0**-1021), exact))
    allowed = np.maximum(atol, lift(np.array(e.case.tolerance), exact) * distance)
    allowed = allowed * (1 + lift(np.array(1e-12), exact))  # the tolerance itself is rounded
    wrong |= (bound > distance) | (violation > allowed) | (distance - bound > allowed)
    wrong |= abs(distance - bound - gap) > distance * lift(np.array(ONE_ULP), exact)
    outside = x - clip(x, low, high)
    wrong |= (outside * outside).sum(axis=1) > allowed**2
    m, c, _ = _rows(e, pick, exact, every=True)
    value = (m * x[:, None, :]).sum(axis=2) + c
    tie = np.arange(m.shape[1]) == e.target[pick][:, None]
    lost = np.where(tie, abs(value), np.maximum(-value, value * 0))
    lost = np.where(np.arange(m.shape[1]) == e.source[pick][:, None], lost * 0, lost)
    norms = (m * m).sum(axis=2)
    wrong |= (lost * lost > norms * (allowed**2)[:, None]).any(axis=1)
    # what is reported may miss its own rounding, a few units in the last place of |z'|
    stated = violation * digits + (4 * z.shape[1] + 16) * lift(np.array(U), exact) * end
    stated = stated + lift(np.array(TINY), exact)
    wrong |= (lost * lost > norms * (stated**2)[:, None]).any(axis=1)
    bad[done] = wrong
    return bad


def _at_least_norm(x: Array) -> Array:
    """Return |x| (P,), raised by at most some ulps where the numbers are fractions."""
    if x.dtype != object:
        return np.sqrt((x * x).sum(axis=1))
    largest = abs(x).max(axis=1)
    safe = np.where(largest > 0, largest, largest + 1)
    ratio = ((x / safe[:, None]) ** 2).sum(axis=1).astype(np.float64)
    return safe * lift(np.sqrt(ratio) * (1 + 1e-15), True) * (largest > 0)


def _infeasible(e: _Entries, pick: Array, exact: bool) -> Array:
    """Where "none within R" is said with R not above a million times the scale."""
    claims = (e.status[pick] == Status.INFEASIBLE) & np.isfinite(e.lower_bound[pick])
    bad = np.zeros(len(pick), dtype=bool)
    pick = pick[claims]
    if not len(pick):
        return bad
    z = _start(e, pick, exact)[0]
    m, c, _ = _rows(e, pick, exact, every=True)
    norms = (m * m).sum(axis=2)
    planes = c * c / np.where(norms > 0, norms, norms * 0 + 1) * (norms > 0)
    worst = np.maximum((z * z).sum(axis=1), planes.max(axis=1))
    bound = lift(e.lower_bound[pick], exact)
    bad[claims] = bound * bound < worst * TOO_FAR**2
    return bad
