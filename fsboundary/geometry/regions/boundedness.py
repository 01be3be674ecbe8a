"""Boundedness of regions by their recession cones.

A region is bounded if no direction keeps every slack and every face.

Unbounded is proved by a direction along which no slack and no face falls. Bounded is proved by
weights λ > 0 of the rows: with u = Σ λ_m a_m, ``u_q < 0`` where there is only a lower face, ``> 0``
where there is only an upper face, and ``= 0`` where there is none, where the rows must also have
full rank. A direction g of the recession cone then satisfies ``0 <= Σ λ_m a_m.g = u.g <= 0``, so g
vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fsboundary.core.status import Status
from fsboundary.geometry.exact_arithmetic import (
    MAX_EXACT_WORK,
    Array,
    dependent_columns,
)
from fsboundary.geometry.linear_programs import solve_lp
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import BallProgram, region_program
from fsboundary.geometry.regions.ball_proposals import propose_direction
from fsboundary.geometry.regions.certify import boundedness_status, open_features


def has_common_ray(space: Arrangement) -> bool:
    """Return whether some direction changes no margin and meets no face: no region is bounded.

    True is exact: more features without faces than independent rows, or a feature with an open
    side to which all classes give the same weight.
    """
    w = space.full_weight[:, space.free]
    open_low, open_high = np.isinf(space.lower), np.isinf(space.upper)
    equal = (w == w[0]).all(axis=0) & (open_low | open_high)
    free = np.flatnonzero(open_low & open_high).tolist()
    if equal.any() or len(free) > space.num_classes - 1:
        return True
    if space.num_classes * len(free) > MAX_EXACT_WORK:
        return False
    exact = (space.exact_row(0, k) for k in range(1, space.num_classes))
    return any(dependent_columns([[row[q] for q in free] for row in exact]))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundednessProof:
    """A direction (f,) that leaves the region nowhere, or positive weights (M,) of its rows."""

    direction: Array | None = None
    weights: Array | None = None


NO_PROOF = BoundednessProof()


def certify_boundedness(space: Arrangement, i: int, proof: BoundednessProof) -> Status:
    """Return what `proof` proves of region `i`: CONVERGED (bounded), UNBOUNDED or UNDECIDED.

    A point of the region must be known.
    """
    return Status.CONVERGED if _is_box(space) else _certify(region_program(space, i), proof)


def boundedness(space: Arrangement, i: int) -> tuple[Status, BoundednessProof, int]:
    """Return the proved status of region `i`, its proof, and the number of linear programs.

    CONVERGED (bounded), UNBOUNDED or UNDECIDED. A point of the region must be known.
    """
    if _is_box(space):
        return Status.CONVERGED, NO_PROOF, 0
    program = region_program(space, i)
    status = _certify(program, NO_PROOF)
    if isinstance(program, Status) or status != Status.UNDECIDED:
        return status, NO_PROOF, 0
    proof = BoundednessProof(direction=propose_direction(program, strict=False))
    if _certify(program, proof) == Status.UNBOUNDED:
        return Status.UNBOUNDED, proof, 1
    proof = BoundednessProof(weights=_propose_weights(program))
    return _certify(program, proof), proof, 2


def _is_box(space: Arrangement) -> bool:
    return bool((np.isfinite(space.lower) & np.isfinite(space.upper)).all())


def _certify(program: BallProgram | Status, proof: BoundednessProof) -> Status:
    if isinstance(program, Status):
        return program
    if len(program.rows) == 0:
        return Status.UNBOUNDED  # the region is the domain, and it has an open side
    return boundedness_status(program, direction=proof.direction, weights=proof.weights)


def _propose_weights(program: BallProgram) -> Array | None:
    """Return weights (M,) of the rows, as strict as HiGHS finds them."""
    free, one, sign = open_features(program)
    rows = program.rows / program.norm[:, None]
    m = len(rows)
    # λ = x + t / M with x >= 0: every weight is at least t / M
    mean = rows.mean(axis=0)
    faces = np.column_stack([(rows[:, one] * sign).T, mean[one] * sign + 1.0])
    balance = np.column_stack([rows[:, free].T, mean[free]])
    solution = solve_lp(
        np.append(np.zeros(m), -1.0),
        np.append(np.zeros(m), -np.inf),
        np.append(np.full(m, np.inf), 1.0),
        ineq_matrix=faces,
        ineq_rhs=np.zeros(len(one)),
        eq_matrix=np.vstack([balance, np.ones(m + 1)]),
        eq_rhs=np.append(np.zeros(len(free)), 1.0),
    )
    if solution is None or solution.x[-1] <= 0:
        return None
    weights: Array = np.maximum(solution.x[:m], 0.0) + solution.x[m] / m
    return weights / program.norm
