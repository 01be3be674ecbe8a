"""An independent checker of hull projections, from raw inputs and results only.

Everything is evaluated in longdouble first. Checks that fail there are repeated with fractions,
without any rounding, and only those that fail again are faults. A bound that the result's own
weights do not prove is decided by another solver, in fractions where these are affordable.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fsboundary import Status
from support.flips.case import Array
from support.flips.checker import ONE_ULP, TINY, Fault, U
from support.hulls.case import HullCase
from support.hulls.exact import nearest_weights, shifted
from support.numbers import lift

EXACT_NUMBERS = 2000
"""Maximum of points times coordinates for hulls on which projections are computed in fractions."""

NEARLY = 1e-9
"""Relative error allowed for a tolerance, which is not a certificate itself."""


class _Row:
    """One finite query, its generators and the result."""

    def __init__(self, case: HullCase, answer: dict[str, Array], row: int) -> None:
        self.case, self.row = case, row
        self.query = case.queries[row].astype(np.float64)
        self.counts = case.counts(row)
        self.claimed = {name: value[row] for name, value in answer.items()}
        self.done = bool(self.claimed["status"] == Status.CONVERGED)
        self.used = self.claimed["support"] >= 0
        self.bound, self.distance = (
            float(self.claimed["lower_bound"]),
            float(self.claimed["distance"]),
        )
        self.inside, self.outside = (
            self.claimed["membership"] == 1,
            self.claimed["membership"] == -1,
        )

    @cached_property
    def generators(self) -> Array:
        return self.case.points[self.counts].astype(np.float64)

    @cached_property
    def largest(self) -> float:
        """The largest coordinate of the hull's points, including those left out."""
        return float(abs(self.case.points[self.case.same_class(self.row)]).max())

    @cached_property
    def support_points(self) -> Array:
        return self.case.points[self.claimed["support"][self.used]].astype(np.float64)

    @cached_property
    def atol(self) -> np.longdouble:
        """1e-9 of the RMS norm about the mean or of the row's spread, one ulp of the numbers.

        The spread is the mean distance of the row from its support, by weight: a point far away
        counts as little as its weight.
        """
        query = lift(self.query, False)
        known = self.used & (self.claimed["support"] < len(self.case.points))
        away = lift(self.case.points[self.claimed["support"][known]], False) - query
        weights = lift(self.claimed["weights"][known], False)
        spread = (weights * np.sqrt((away**2).sum(axis=1))).sum()
        ulp = 2 * np.longdouble(U) * (4 * np.sqrt((query**2).sum()) + 3 * spread)
        return np.longdouble(max(min(self.scale, spread) / 10**9, ulp, np.longdouble(TINY)))

    @cached_property
    def scale(self) -> np.longdouble:
        """RMS norm of the hull's points about their mean."""
        v = lift(self.case.points[self.case.same_class(self.row)], False)
        return np.longdouble(np.sqrt(((v - v.mean(axis=0)) ** 2).sum(axis=1).mean()))

    def combination(self, exact: bool) -> Array:
        """Return q - Σ a v / Σ a (d,): `points` without its rounding."""
        weights = lift(self.claimed["weights"][self.used], exact)
        support_points = lift(self.support_points, exact)
        return np.asarray(
            lift(self.query, exact)
            - (weights[:, None] * support_points).sum(axis=0) / weights.sum()
        )

    def slack(self, exact: bool) -> Array:
        """Return the rounding (d,) of a weighted sum of the support in float64."""
        fraction = (2 * len(self.support_points) + 8) * U
        largest = np.maximum(abs(self.support_points).max(axis=0), abs(self.query))
        return np.asarray(
            lift(largest, exact) * lift(np.array(fraction), exact) + lift(np.array(TINY), exact)
        )


def check_hulls(case: HullCase, answer: dict[str, Array], reduced: bool = True) -> list[Fault]:
    """Return every false claim of `answer` about `case`.

    With `reduced`, supports must also be as small as Carathéodory's theorem allows.
    """
    faults: list[Fault] = []
    for number in range(len(case.queries)):
        if not np.isfinite(case.queries[number].astype(np.float64)).all():
            if not _is_blank(answer, number):
                faults.append(Fault("bad row", number, 0, str(answer["status"][number])))
            continue
        row = _Row(case, answer, number)
        kinds = [kind for kind, wrong in _layout(row, reduced).items() if wrong]
        readable = not {"unknown", "nan"} & set(kinds)
        if readable:
            checks = (_point, _distance, _converged, _membership, _plane, _recheckable)
            kinds += [c.__name__[1:] for c in checks if c(row, False) and c(row, True)]
        if 0 < row.bound < np.inf and not (readable and _proved(row)):
            kinds += _decide_bound(row)
        faults += [Fault(kind, number, 0, _detail(row)) for kind in kinds]
    return faults


def _detail(row: _Row) -> str:
    claimed = row.claimed
    return (
        f"status={claimed['status']} membership={claimed['membership']} distance={row.distance!r} "
        f"lower_bound={row.bound!r} gap={claimed['gap']!r} atol={float(row.atol)!r}"
    )


def _is_blank(answer: dict[str, Array], row: int) -> bool:
    """Return whether a row that is not finite has NaN, no support and the bound 0."""
    claimed = {name: value[row] for name, value in answer.items()}
    nan = all(np.isnan(claimed[n]).all() for n in ("points", "distance", "gap", "normal", "offset"))
    empty = (claimed["support"] == -1).all() and (claimed["weights"] == 0).all()
    neutral = claimed["lower_bound"] == 0 and claimed["membership"] == 0
    return bool(nan and empty and neutral and claimed["status"] == Status.NOT_FINITE)


def _layout(row: _Row, reduced: bool) -> dict[str, bool]:
    """Return the faults that are visible without arithmetic, by kind."""
    claimed, used = row.claimed, row.used
    support, weights = claimed["support"], claimed["weights"]
    finite = {n: np.isfinite(claimed[n]).all() for n in ("points", "distance", "gap", "normal")}
    nan = {n: np.isnan(claimed[n]).all() for n in ("points", "distance", "gap", "normal", "offset")}
    expected = finite if row.done else nan
    bad = not all(expected[n] for n in ("points", "distance", "gap"))
    bad |= not (
        finite["normal"] and np.isfinite(claimed["offset"]) if row.outside else nan["normal"]
    )
    bad |= not row.outside and not nan["offset"]
    bad |= not (np.isfinite(row.bound) and row.bound >= 0)
    known = bool((support < len(row.case.points)).all() and (support >= -1).all())
    normalised = bool((weights[used] > 0).all() and (weights[~used] == 0).all())
    total = lift(weights, False).sum()
    normalised &= bool(abs(total - 1) <= 1e-12) if used.any() else not row.done
    few = len(row.query) + (not row.outside)
    return {
        "unknown": not known or ((used.any() or row.done) and not 0 < total < np.inf),
        "status": claimed["status"] not in (Status.CONVERGED, Status.MAX_STEPS, Status.INACCURATE),
        "nan": bad,
        "weights": not normalised,
        "repeated": len(np.unique(support[used])) != used.sum(),
        "excluded": known and not row.counts[support[used]].all(),
        "inside undone": bool(row.inside) and not row.done,
        "reduced": reduced and row.done and int(used.sum()) > few,
    }


def _point(row: _Row, exact: bool) -> bool:
    """Return whether `points` misses the weighted sum of the support by more than its rounding."""
    if not row.done:
        return False
    off = abs(lift(row.query, exact) - lift(row.claimed["points"], exact) - row.combination(exact))
    return bool((off > row.slack(exact)).any())


def _distance(row: _Row, exact: bool) -> bool:
    """Return whether `distance` is not |q - points|, or below the distance of the weighted sum."""
    if not row.done:
        return False
    digits = 1 + lift(np.array((2 * len(row.query) + 8) * U), exact)
    # squares of numbers far smaller than the others vanish from a norm
    smallest = max(TINY, U * U * max(abs(row.query).max(), row.largest))
    value, tiny = lift(np.array(row.distance), exact), lift(np.array(smallest), exact)
    away = lift(row.query, exact) - lift(row.claimed["points"], exact)
    length = (away * away).sum()
    bad = length > (value * digits + tiny) ** 2
    bad |= value > tiny and length * digits**2 < (value - tiny) ** 2
    away = row.combination(exact)
    return bool(bad or (away * away).sum() > (value * digits + tiny + row.slack(exact).sum()) ** 2)


def _converged(row: _Row, exact: bool) -> bool:
    """Return whether the gap is not the difference of the bounds, or above the tolerance."""
    if not row.done:
        return False
    distance, gap = (lift(np.array(row.claimed[n]), exact) for n in ("distance", "gap"))
    bound = lift(np.array(row.bound), exact)
    allowed = max(row.atol, np.longdouble(row.case.tolerance) * np.longdouble(row.distance))
    bad = bound > distance or abs(distance - bound - gap) > distance * lift(
        np.array(ONE_ULP), exact
    )
    return bool(bad or np.longdouble(row.claimed["gap"]) > allowed * (1 + NEARLY))


def _membership(row: _Row, exact: bool) -> bool:
    """Return whether inside, outside or undecided contradicts the distance or the bound."""
    low, high = row.atol * (1 - NEARLY), row.atol * (1 + NEARLY)
    if row.outside:
        return bool(row.bound <= 0)
    if row.inside and row.bound > 0:
        return True
    if row.inside:
        away = row.combination(exact)
        limit = lift(np.array(float(high) * (1 + ONE_ULP)), exact)
        return bool((away * away).sum() > (limit + row.slack(exact).sum()) ** 2)
    if row.done:
        return bool(row.bound > 0 or row.distance < low)
    return bool(row.bound > max(high, row.scale / 10**9))


def _plane(row: _Row, exact: bool) -> bool:
    """Return whether the hyperplane is not normalised, or does not separate the hull from q."""
    if not row.outside:
        return False
    normal, offset = (
        lift(row.claimed["normal"], exact),
        lift(np.array(row.claimed["offset"]), exact),
    )
    length = (normal * normal).sum()
    bad = abs(length - 1) > (2 * len(normal) + 16) * U
    bad |= bool(((lift(row.generators, exact) * normal).sum(axis=1) > offset).any())
    return bool(bad or (normal * lift(row.query, exact)).sum() <= offset)


def _proves(row: _Row, away: Array, exact: bool) -> bool:
    """Return whether no generator is nearer than `lower_bound` along the direction `away` (d,)."""
    smallest = -(shifted(row.generators, row.query, exact) * away).sum(axis=1).max()
    bound = lift(np.array(row.bound), exact)
    return bool(smallest > 0 and smallest * smallest >= bound * bound * (away * away).sum())


def _recheckable(row: _Row, exact: bool) -> bool:
    """Return whether the bound of a converged row exceeds what its point and its normal prove."""
    return row.done and row.bound > 0 and not _proved_by_result(row, exact)


def _proved_by_result(row: _Row, exact: bool) -> bool:
    """Return whether q - points or the normal proves the bound."""
    directions = [lift(row.claimed["normal"], exact)] if row.outside else []
    directions += [lift(row.query, exact) - lift(row.claimed["points"], exact)] if row.done else []
    return any(_proves(row, away, exact) for away in directions)


def _proved(row: _Row) -> bool:
    """Return whether any direction in the result proves the bound."""
    return any(
        _proved_by_result(row, exact)
        or (row.used.any() and _proves(row, row.combination(exact), exact))
        for exact in (False, True)
    )


def _decide_bound(row: _Row) -> list[str]:
    """Return ["bound"] if the bound is false, ["unproved"] if nothing decides it, else []."""
    for exact in (False, True):
        if exact and row.generators.size > EXACT_NUMBERS:
            break
        points = shifted(row.generators, row.query, exact)
        size = abs(points).max()
        weights = nearest_weights(points / size if size > 0 else points)
        weights = lift(weights.astype(np.float64), True) if not exact else weights
        exact_points = shifted(row.generators, row.query, True)
        away = -(weights[:, None] * exact_points).sum(axis=0) / weights.sum()
        if _proves(row, away, True):
            return []
        if (away * away).sum() < lift(np.array(row.bound), True) ** 2:
            return ["bound"]
    return ["unproved"]
