"""Flip and tie distances without any rounding, for a handful of classes and features.

The closest point of a polyhedron is the projection onto some of its constraints, taken as
equalities, with independent rows and multipliers of the right sign; and only the closest point
meets these conditions. So all sets of constraints are tried, in fractions.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np

from support.flips.case import Case

Row = list[Fraction]


def flip_distance_squared(case: Case, row: int, source: int, target: int) -> Fraction | None:
    """Return the squared flip distance of one row, or None where there is no boundary point."""
    return tie_distance_squared(case, row, [target, source])


def tie_distance_squared(case: Case, row: int, classes: list[int]) -> Fraction | None:
    """Return the squared distance of one row to where `classes` tie at the top, or None."""
    weight = [[Fraction(v) for v in w] for w in case.weight.astype(np.float64).tolist()]
    bias = [Fraction(v) for v in case.bias.astype(np.float64).tolist()]
    z = [Fraction(v) for v in case.features[row].astype(np.float64).tolist()]

    def difference(k: int, m: int) -> tuple[Row, Fraction]:
        return [a - b for a, b in zip(weight[k], weight[m], strict=True)], bias[k] - bias[m]

    anchor = classes[0]
    ties = [difference(k, anchor) for k in classes[1:]]
    sides = [difference(anchor, k) for k in range(len(bias)) if k not in classes]
    low, high = case.limits()
    for m in range(len(z)):
        unit = [Fraction(int(m == n)) for n in range(len(z))]
        if np.isfinite(low[m]):
            sides.append((unit, -Fraction(float(low[m]))))
        if np.isfinite(high[m]):
            sides.append(([-v for v in unit], Fraction(float(high[m]))))
    fixed = _independent(ties)
    if fixed is None:
        return None
    if any(c < 0 and not any(a) for a, c in sides):
        return None
    sides = [(a, c) for a, c in sides if any(a)]
    for size in range(len(z) - len(fixed) + 1):
        for chosen in combinations(range(len(sides)), size):
            x = _projection(z, fixed + [sides[s] for s in chosen], len(fixed))
            if x is not None and all(_dot(a, x) + c >= 0 for a, c in sides):
                return sum(((p - q) ** 2 for p, q in zip(x, z, strict=True)), Fraction(0))
    return None


def _independent(rows: list[tuple[Row, Fraction]]) -> list[tuple[Row, Fraction]] | None:
    """Return independent equations with the same solutions, or None where they contradict."""
    kept: list[tuple[Row, Fraction]] = []
    for a, c in rows:
        for b, e in kept:
            pivot = next(m for m, v in enumerate(b) if v)
            share = a[pivot] / b[pivot]
            a, c = [p - share * q for p, q in zip(a, b, strict=True)], c - share * e
        if any(a):
            kept.append((a, c))
        elif c != 0:
            return None
    return kept


def _dot(a: Row, b: Row) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def _projection(z: Row, rows: list[tuple[Row, Fraction]], free: int) -> Row | None:
    """Return the projection of `z` on the rows as equalities, if its multipliers are admissible.

    None also where the rows are dependent. The first `free` multipliers may have any sign.
    """
    gram = [[_dot(a, b) for b, _ in rows] + [-(_dot(a, z) + c)] for a, c in rows]
    n = len(rows)
    for i in range(n):
        pivot = next((k for k in range(i, n) if gram[k][i]), None)
        if pivot is None:
            return None
        gram[i], gram[pivot] = gram[pivot], gram[i]
        gram[i] = [v / gram[i][i] for v in gram[i]]
        for k in range(n):
            if k != i and gram[k][i]:
                gram[k] = [v - gram[k][i] * p for v, p in zip(gram[k], gram[i], strict=True)]
    multipliers = [g[n] for g in gram]
    if any(m < 0 for m in multipliers[free:]):
        return None
    return [
        z[m] + sum((mu * a[m] for mu, (a, _) in zip(multipliers, rows, strict=True)), Fraction(0))
        for m in range(len(z))
    ]
