"""Projection onto one tie in the domain: a scalar dual problem.

There is one multiplier and one monotone equation per problem. With a = w_i - w_j and z in the
domain, t -> a . clip(z - t a) + c decreases from the margin, is convex and piecewise linear, so
Newton's method from t = 0 never passes the root and ends after finitely many pieces. It solves the
nearest class exactly and gives a start for the full problem.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fsboundary.core.tolerance import EPS
from fsboundary.geometry.flips.dual_problems import FlipProblems, empty_slots

MAX_PIECES = 60
"""Limit on the Newton steps; each crosses at least one kink. Real rows need three to six."""


def flip_start(
    problems: FlipProblems,
) -> tuple[Float64[Tensor, "P K"], Bool[Tensor, " P"]]:
    """Return multipliers (P,K) that solve only the tie, and which ties are unreachable (P,)."""
    multiplier, unreachable = solve_scalar_dual(problems)
    lam = empty_slots(problems)
    return lam.scatter_(1, problems.target[:, None], multiplier[:, None]), unreachable


def solve_scalar_dual(
    problems: FlipProblems,
) -> tuple[Float64[Tensor, " P"], Bool[Tensor, " P"]]:
    """Return the tie multiplier -t (P,) and which ties are unreachable (P,), bool.

    A multiplier is admissible at any step, so its dual value is a lower bound even where the
    steps ran out. Unreachable ties (the slope vanishes before the root) get multiplier -1, whose
    direction proves it (see :mod:`fsboundary.geometry.flips.bounds`).
    """
    normal, offset = problems.tie_rows()
    z, domain = problems.z, problems.head.domain
    squares = normal * normal
    full = squares.sum(dim=1)
    t = torch.zeros_like(offset)
    value = torch.linalg.vecdot(normal, z) + offset
    if domain.kind == "unbounded":
        constant = full == 0
        t = torch.where(constant, 1.0, value / full)
        return -t, constant & (offset != 0)
    low, high = domain.limits(z)
    # a coordinate on a face stays there for every t > 0 if it would leave the domain
    moves = ~(((z <= low) & (normal > 0)) | ((z >= high) & (normal < 0)))
    slope = torch.linalg.vecdot(squares, moves.to(z.dtype))
    unreachable = torch.zeros_like(offset, dtype=torch.bool)
    rows = torch.arange(len(z), device=z.device)
    a, zz, sq, c = normal, z, squares, offset
    # |value| below this is rounding of its own evaluation
    noise = 4 * EPS * (offset.abs() + full.sqrt() * torch.linalg.vector_norm(z, dim=1))
    for _ in range(MAX_PIECES):
        small = value <= noise[rows] + 4 * EPS * t[rows] * full[rows]
        blocked = ~small & (slope == 0)
        unreachable[rows[blocked]] = True
        go = ~(small | blocked)
        if not bool(go.all()):
            rows, value, slope = rows[go], value[go], slope[go]
            a, zz, sq, c = a[go], zz[go], sq[go], c[go]
        if len(rows) == 0:
            break
        step = t[rows] + value / slope
        t[rows] = step
        raw = torch.addcmul(zz, a, step[:, None], value=-1.0)
        inside = ((raw > low) & (raw < high)).to(z.dtype)
        clipped = domain.clip(raw)
        value = torch.linalg.vecdot(a, clipped) + c
        slope = torch.linalg.vecdot(sq, inside)
    t = torch.where(unreachable, 1.0, t)
    return -t, unreachable
