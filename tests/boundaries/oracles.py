"""Slow, obvious answers that ties, signed distances and paths are tested against."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

import fsboundary as fsb

Array = NDArray[np.float64]


def constraints(head: fsb.LinearHead, classes: list[int]) -> tuple[Array, Array, Array, Array]:
    """Return rows and offsets of the ties of consecutive classes, then those of the slacks."""
    w, b = head.weight.numpy(), head.bias.numpy()
    others = np.setdiff1d(np.arange(len(b)), classes)
    first, next_ = classes[:-1], classes[1:]
    last = classes[-1]
    return w[first] - w[next_], b[first] - b[next_], w[last] - w[others], b[last] - b[others]


def tie_distance(head: fsb.LinearHead, z: Array, classes: list[int]) -> float:
    """Return Clarabel's distance to the tie, +inf where HiGHS says that there is no such point."""
    ties, tie_offsets, rows, offsets = constraints(head, classes)
    # solved for the step from z: Clarabel's tolerance is relative to the objective
    tie_offsets, offsets = tie_offsets + ties @ z, offsets + rows @ z
    low, high = (t.numpy() - z for t in head.domain.limits(head.weight))
    feasible = linprog(
        np.zeros(len(z)),
        A_ub=-rows if len(rows) else None,
        b_ub=offsets if len(rows) else None,
        A_eq=ties if len(ties) else None,
        b_eq=-tie_offsets if len(ties) else None,
        bounds=np.stack([low, high], axis=1),
        method="highs",
    )
    if feasible.status == 2:
        return float("inf")
    assert feasible.status == 0
    lower, upper = np.isfinite(low), np.isfinite(high)
    eye = sparse.identity(len(z), format="csr")
    parts = [sparse.csr_matrix(ties), sparse.csr_matrix(-rows), -eye[lower], eye[upper]]
    matrix = sparse.vstack([p for p in parts if p.shape[0]]).tocsc()
    right = np.concatenate([-tie_offsets, offsets, -low[lower], high[upper]])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # of the objective, half the squared distance: 1e-8 would be 1e-4 of a distance of 0
    settings.tol_gap_abs, settings.tol_gap_rel, settings.tol_feas = 1e-13, 1e-10, 1e-10
    kinds: list[Any] = [clarabel.ZeroConeT(len(ties))] if len(ties) else []
    if len(right) > len(ties):
        kinds.append(clarabel.NonnegativeConeT(len(right) - len(ties)))
    quadratic = sparse.identity(len(z), format="csc")
    answer = clarabel.DefaultSolver(quadratic, 0 * z, matrix, right, kinds, settings).solve()
    return float(np.linalg.norm(np.array(answer.x)))


def exact_class(head: fsb.LinearHead, start: Array, end: Array, t: Fraction) -> int:
    """Return the class at ``start + t (end - start)`` without rounding, lowest index on ties."""
    a, b = ([Fraction(v) for v in x.tolist()] for x in (start, end))
    z = [p + t * (q - p) for p, q in zip(a, b, strict=True)]
    weight, bias = head.weight.tolist(), head.bias.tolist()
    logits = [
        Fraction(c) + sum(Fraction(w) * v for w, v in zip(row, z, strict=True))
        for row, c in zip(weight, bias, strict=True)
    ]
    return logits.index(max(logits))
