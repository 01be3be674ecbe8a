"""An independent checker of tie points, in the manner of :mod:`certificates.checker`.

Raw inputs and the answer, longdouble first and fractions for what fails there. Proofs that there is
no such point are always checked with fractions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fsboundary as fsb
from fsboundary import Status
from support.flips.case import Array, Case, arrays
from support.flips.checker import ONE_ULP, TINY, TOO_FAR, Fault, U
from support.numbers import clip, dual_value, halfspace_distance_squared, lift

LEGAL = (Status.CONVERGED, Status.INFEASIBLE, Status.MAX_STEPS, Status.INACCURATE)


def ties(case: Case, classes: Array, **options: Any) -> dict[str, Array]:
    """Return fsboundary's tie points as arrays."""
    chosen = torch.from_numpy(classes)
    found = fsb.tie_points(
        case.head(), torch.tensor(case.features), chosen, tolerance=case.tolerance, **options
    )
    return arrays(found)


def random_classes(g: np.random.Generator, count: int, rows: int) -> Array:
    """Return sets of classes (rows, M), padded with -1, small ones more often."""
    width = int(g.integers(1, min(count, 4) + 1)) if g.random() < 0.7 else count
    order = np.argsort(g.random((rows, count)), axis=1)[:, :width]
    drop = g.random((rows, width)) < 0.2
    drop[:, 0] = False
    return np.where(drop, -1, order)


@dataclass(frozen=True)
class Row:
    """One row's problem and answer in one kind of numbers."""

    z: Array
    low: Array
    high: Array
    matrix: Array
    offset: Array
    tied: Array
    lam: Array
    answer: dict[str, Any]
    tolerance: float
    exact: bool


def read(case: Case, answer: dict[str, Array], row: int, exact: bool) -> Row:
    """Return row `row`, constraints relative to the anchor."""
    w, b = lift(case.weight, exact), lift(case.bias, exact)
    r = int(answer["anchor"][row])
    lam = np.zeros(len(b))
    for k, value in zip(answer["active"][row], answer["multipliers"][row], strict=True):
        if k >= 0:
            lam[k] = value
    tied = np.isin(np.arange(len(b)), answer["classes"][row])
    low, high = (lift(x, exact) for x in case.limits())
    return Row(
        z=lift(case.features[row], exact),
        low=low,
        high=high,
        matrix=w[r] - w,
        offset=b[r] - b,
        tied=tied,
        lam=lift(lam, exact),
        answer={n: v[row] for n, v in answer.items()},
        tolerance=case.tolerance,
        exact=exact,
    )


def examine_ties(case: Case, seed: int) -> tuple[Counter[str], list[Fault]]:
    """Return counts of statuses and every fault of the ties of random classes of `case`."""
    g = np.random.default_rng([seed, 7])
    answer = ties(case, random_classes(g, len(case.bias), len(case.features)))
    counts = Counter(Status(int(s)).name for s in answer["status"])
    return counts, check_ties(case, answer)


def check_ties(case: Case, answer: dict[str, Array]) -> list[Fault]:
    """Return every false statement of `answer` about `case`."""
    faults = []
    low, high = case.limits()
    for row, z in enumerate(case.features.astype(np.float64)):
        status = int(answer["status"][row])
        if not np.isfinite(z).all():
            fits = status == Status.NOT_FINITE
        elif not ((z >= low) & (z <= high)).all():
            fits = status == Status.OUTSIDE_DOMAIN
        else:
            fits = status in LEGAL
        if not fits or not _blank_where_failed({n: v[row] for n, v in answer.items()}):
            faults.append(Fault("status", row, 0, str(status)))
        if status not in LEGAL:
            continue
        for check in (_layout, *ROW_CHECKS):
            if check(read(case, answer, row, False)) and check(read(case, answer, row, True)):
                said = {n: answer[n][row] for n in ("status", "anchor", "distance", "lower_bound")}
                faults.append(Fault(check.__name__[1:], row, 0, f"{said}"))
    return faults


def _blank_where_failed(said: dict[str, Any]) -> bool:
    done, none = said["status"] == Status.CONVERGED, said["status"] == Status.INFEASIBLE
    numbers = [said["distance"], said["gap"], said["violation"], *said["points"]]
    if done:
        return bool(np.isfinite(numbers).all() and said["lower_bound"] >= 0)
    blank = np.isnan(said["points"]).all() and np.isnan(said["violation"])
    right = np.isposinf(said["distance"]) if none else np.isnan(said["distance"])
    return bool(blank and right and said["lower_bound"] >= 0)


def _layout(r: Row) -> bool:
    """The anchor is tied; multipliers of slacks are not negative, all are finite."""
    anchor, active = int(r.answer["anchor"]), r.answer["active"]
    used = active[active >= 0]
    bad = not r.tied[anchor] or anchor in used or len(set(used)) < len(used)
    lam = r.answer["multipliers"]
    return bool(bad or not np.isfinite(lam).all() or (r.lam < 0)[~r.tied].any())


def _combination(r: Row) -> tuple[Array, Any]:
    """Return u = Mᵀλ (d,) and h = λᵀc: every point x of the tie has u.x + h >= 0."""
    return (r.lam[:, None] * r.matrix).sum(axis=0), (r.lam * r.offset).sum()


def _numbers(r: Row) -> tuple[Array, Array, Array]:
    return r.z[None], r.low[None], r.high[None]


def _bound(r: Row) -> bool:
    """The bound passes the distance to {x in the domain: u.x + h >= 0}, which holds the tie."""
    u, h = _combination(r)
    squared, none = halfspace_distance_squared(u[None], np.array([h]), *_numbers(r))
    bound = float(r.answer["lower_bound"])
    if np.isinf(bound):
        # a proof that there is nothing is always checked exactly
        return not none[0] or not r.exact
    value = lift(np.array([bound]), r.exact)[0]
    return bool(not none[0] and value * value > squared[0])


def _recheckable(r: Row) -> bool:
    """A converged row's bound is above sqrt(2 g) of its own multipliers."""
    if r.answer["status"] != Status.CONVERGED:
        return False
    u, h = _combination(r)
    g = dual_value(u[None], np.array([(u * r.z).sum() + h]), *_numbers(r))[0]
    value = lift(np.array([r.answer["lower_bound"]]), r.exact)[0]
    return bool(value > 0 and value * value > 2 * g)


def _converged(r: Row) -> bool:
    """A converged point misses the distance, the constraints or the tolerance that it claims."""
    if r.answer["status"] != Status.CONVERGED:
        return False
    names = ("distance", "lower_bound", "gap", "violation")
    d, bound, gap, violation = lift(np.array([r.answer[n] for n in names]), r.exact)
    x = lift(r.answer["points"], r.exact)
    digits = 1 + lift(np.array([(2 * len(x) + 8) * U]), r.exact)[0]
    length = ((x - r.z) ** 2).sum()
    wrong = length > (d * digits) ** 2 or d * d > length * digits**2
    # |z| + |z'|, from above; hypot does not underflow
    norms = [np.hypot.reduce(np.append(v.astype(np.float64), 0.0)) for v in (x, r.z)]
    size = lift(np.array([sum(norms) * (1 + 1e-12)]), r.exact)[0]
    small = lift(np.array([1e-9, 2.0**-1021, r.tolerance, 1e-12, ONE_ULP, U, TINY]), r.exact)
    allowed = max(small[0] * size, small[1], small[2] * d) * (1 + small[3])
    wrong |= bound > d or violation > allowed or d - bound > allowed
    wrong |= abs(d - bound - gap) > d * small[4]
    outside = x - clip(x, r.low, r.high)
    wrong |= (outside**2).sum() > allowed**2
    value = (r.matrix * x).sum(axis=1) + r.offset
    lost = np.where(r.tied, abs(value), np.maximum(-value, value * 0))
    norms = (r.matrix**2).sum(axis=1)
    # what is reported may miss its own rounding, a few units in the last place of |z'|
    stated = violation * digits + (4 * len(x) + 16) * small[5] * size + small[6]
    wrong |= (lost * lost > norms * allowed**2).any()
    return bool(wrong or (lost * lost > norms * stated**2).any())


def _far(r: Row) -> bool:
    """None within R is said with R not above a million times the scale."""
    bound = float(r.answer["lower_bound"])
    if r.answer["status"] != Status.INFEASIBLE or np.isinf(bound):
        return False
    norms = (r.matrix**2).sum(axis=1)
    planes = r.offset**2 / np.where(norms > 0, norms, norms * 0 + 1) * (norms > 0)
    value = lift(np.array([bound]), r.exact)[0]
    return bool(value * value < max((r.z**2).sum(), planes.max()) * TOO_FAR**2)


ROW_CHECKS = (_bound, _recheckable, _converged, _far)
"""Checks of one row's constraints and answer; each returns whether a statement is false."""
