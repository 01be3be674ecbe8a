"""Slow, obvious answers that the fast paths are tested against."""

from __future__ import annotations

from typing import Any

import clarabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

import fsboundary as fsb

Array = NDArray[np.float64]


def make_domain(kind: str, d: int) -> fsb.Domain:
    """Return a domain of `kind` for width `d`."""
    if kind == "unbounded":
        return fsb.Domain.unbounded()
    if kind == "nonnegative":
        return fsb.Domain.nonnegative()
    return fsb.Domain.box(torch.full((d,), -0.5), torch.full((d,), 1.5))


def make_problem(
    k: int, d: int, kind: str, rows: int, seed: int
) -> tuple[fsb.LinearHead, torch.Tensor]:
    """Return a random head and `rows` features inside its domain."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64)
    bias = 0.3 * torch.randn(k, generator=g, dtype=torch.float64)
    domain = make_domain(kind, d)
    head = fsb.LinearHead(weight, bias, domain)
    z = torch.randn(rows, d, generator=g, dtype=torch.float64)
    return head, domain.clip(z)


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


def flip_distance(head: fsb.LinearHead, z: Array, i: int, j: int) -> float:
    """Return Clarabel's flip distance: that to the tie of two classes."""
    return tie_distance(head, z, [i, j])


def linf_radius(head: fsb.LinearHead, z: Array, i: int) -> float:
    """Return the Linf radius by bisection on the worst point of the ball within the domain."""
    w, b = head.weight.numpy(), head.bias.numpy()
    low, high = (t.numpy() for t in head.domain.limits(head.weight))

    def safe(radius: float) -> bool:
        lo, hi = np.maximum(z - radius, low), np.minimum(z + radius, high)
        for k in range(len(b)):
            a = w[i] - w[k]
            worst = np.where(a > 0, lo, hi)
            if k != i and a @ worst + b[i] - b[k] < 0:
                return False
        return True

    bottom, top = 0.0, 1.0
    while safe(top):
        bottom, top = top, 2 * top
        if top > 1e9:
            return float("inf")
    for _ in range(200):
        middle = 0.5 * (bottom + top)
        bottom, top = (middle, top) if safe(middle) else (bottom, middle)
    return bottom
