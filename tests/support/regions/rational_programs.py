"""Existence of regions and facets, decided in fractions by a simplex method without rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import fsboundary as fsb
from fsboundary import Status
from support.regions.enumeration import Array

Row = list[Fraction]


def contradictions(
    head: fsb.LinearHead, low: Array, high: Array, found: fsb.Partition
) -> list[str]:
    """Return the claims about existence that fractions refute; no feature may be fixed."""
    faults = []
    for i in range(head.num_classes):
        truth = has_interior(head, i, None, low, high)
        faults += _check(f"region {i}", Status(int(found.region_status[i])), truth)
        for j in range(i):
            if found.status[i, j] != Status.DUPLICATE:
                truth = has_interior(head, i, j, low, high)
                faults += _check(f"facet {i} {j}", Status(int(found.status[i, j])), truth)
    return faults


def _check(name: str, status: Status, truth: bool) -> list[str]:
    proved = status in (Status.CONVERGED, Status.UNBOUNDED, Status.INACCURATE)
    wrong = (proved and not truth) or (status == Status.INFEASIBLE and truth)
    return [f"{name}: {status.name}, but exists: {truth}"] if wrong else []


def has_interior(head: fsb.LinearHead, i: int, j: int | None, low: Array, high: Array) -> bool:
    """Return whether region `i`, or its facet with `j`, has a point with all other slacks > 0."""
    w = [[Fraction(v) for v in row] for row in head.weight.tolist()]
    b = [Fraction(v) for v in head.bias.tolist()]
    d = head.num_features
    sides = [_difference(w, b, i, k) for k in range(len(b)) if k not in (i, j)]
    for q in range(d):
        unit = [Fraction(int(m == q)) for m in range(d)]
        if np.isfinite(low[q]):
            sides.append((unit, -Fraction(float(low[q]))))
        if np.isfinite(high[q]):
            sides.append(([-u for u in unit], Fraction(float(high[q]))))
    if j is not None:
        tie, constant = _difference(w, b, i, j)
        lead = next((q for q in range(d) if tie[q]), None)
        if lead is None:
            return False
        sides = [_without(row, c, tie, constant, lead) for row, c in sides]
    # constant on the set: satisfied or not
    if any(c < 0 for row, c in sides if not any(row)):
        return False
    sides = [(row, c) for row, c in sides if any(row)]
    return _largest_slack(sides) > 0


def _difference(w: list[Row], b: Row, i: int, k: int) -> tuple[Row, Fraction]:
    return [p - q for p, q in zip(w[i], w[k], strict=True)], b[i] - b[k]


def _without(
    row: Row, c: Fraction, tie: Row, constant: Fraction, lead: int
) -> tuple[Row, Fraction]:
    """Return a side with feature `lead` eliminated by the tie."""
    factor = row[lead] / tie[lead]
    rest = [a - factor * t for m, (a, t) in enumerate(zip(row, tie, strict=True)) if m != lead]
    return rest, c - factor * constant


def _largest_slack(sides: list[tuple[Row, Fraction]]) -> Fraction:
    """Return max t <= 1 with ``a.z + c >= t`` for all sides, z free (Bland's rule)."""
    if not sides or not sides[0][0]:
        return min([c for _, c in sides], default=Fraction(1))
    start = min([Fraction(0), *(c for _, c in sides)])
    n = len(sides[0][0])
    # columns: z+, z-, s = t - start, slacks; z = 0 with s = 0 is feasible
    table = [[-a for a in row] + list(row) + [Fraction(1)] for row, _ in sides]
    table.append([Fraction(0)] * (2 * n) + [Fraction(1)])
    right = [c - start for _, c in sides] + [1 - start]
    m = len(table)
    for k, row in enumerate(table):
        row += [Fraction(int(k == q)) for q in range(m)] + [right[k]]
    basis = list(range(2 * n + 1, 2 * n + 1 + m))
    cost = [Fraction(0)] * (2 * n) + [Fraction(-1)] + [Fraction(0)] * (m + 1)
    while True:
        enter = next((q for q in range(len(cost) - 1) if cost[q] < 0), None)
        if enter is None:
            return cost[-1] + start
        ratios = [
            (row[-1] / row[enter], basis[k], k) for k, row in enumerate(table) if row[enter] > 0
        ]
        _, _, leave = min(ratios)
        pivot = table[leave][enter]
        table[leave] = [v / pivot for v in table[leave]]
        for row in [*table[:leave], *table[leave + 1 :], cost]:
            factor = row[enter]
            if factor:
                row[:] = [v - factor * p for v, p in zip(row, table[leave], strict=True)]
        basis[leave] = enter
