"""Whether a region is bounded: it is where no direction keeps every slack and every face.

Unbounded is proved by a direction along which no slack and no face falls. Bounded is proved by
weights λ > 0 of the rows: with u = Σ λ_m a_m, ``u_q < 0`` where there is a lower face only, ``> 0``
where there is an upper face only, and ``= 0`` where there is none, where the rows must also have
full rank. A direction g of the recession cone then satisfies ``0 <= Σ λ_m a_m.g = u.g <= 0``, so g
vanishes.
"""

from __future__ import annotations

import numpy as np

from fsboundary.core.status import Status
from fsboundary.geometry.exact_arithmetic import FEW, correction_bound, dependent_columns
from fsboundary.geometry.linear_programs import Array, minimise
from fsboundary.geometry.regions.arrangement import Arrangement, Index
from fsboundary.geometry.regions.ball_programs import LOST, BallProgram, region_program
from fsboundary.geometry.regions.ball_proposals import propose_direction


def has_common_ray(space: Arrangement) -> bool:
    """Whether some direction changes no margin and meets no face, so that no region is bounded.

    True is exact: more features without faces than independent rows, or a feature with an open
    side that all classes weigh alike.
    """
    w = space.full_weight[:, space.free]
    open_low, open_high = np.isinf(space.lower), np.isinf(space.upper)
    alike = (w == w[0]).all(axis=0) & (open_low | open_high)
    free = np.flatnonzero(open_low & open_high).tolist()
    if alike.any() or len(free) > space.num_classes - 1:
        return True
    if space.num_classes * len(free) > FEW:
        return False
    exact = (space.exact_row(0, k) for k in range(1, space.num_classes))
    return any(dependent_columns([[row[q] for q in free] for row in exact]))


def boundedness(space: Arrangement, i: int) -> tuple[Status, int]:
    """Return what is proved of region `i`, and the number of linear programs.

    CONVERGED (bounded), UNBOUNDED or UNDECIDED. For regions of which a point is known.
    """
    if (np.isfinite(space.lower) & np.isfinite(space.upper)).all():
        return Status.CONVERGED, 0
    program = region_program(space, i)
    if isinstance(program, Status) or len(program.rows) == 0:
        # without rows the domain is the region, and it has an open side
        return (program if isinstance(program, Status) else Status.UNBOUNDED), 0
    direction = propose_direction(program, strict=False)
    if direction is not None and _never_falls(program, direction):
        return Status.UNBOUNDED, 1
    weights = _propose_weights(program)
    proved = weights is not None and _keeps_bounded(program, weights)
    return (Status.CONVERGED if proved else Status.UNDECIDED), 2


def _never_falls(program: BallProgram, direction: Array) -> bool:
    """Whether every slack grows along `direction`, moved to where no face is met, proved."""
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    g = np.where(low, np.maximum(direction, 0.0), direction)
    g = np.where(high, np.minimum(g, 0.0), g)
    doubt = program.gamma * (np.abs(program.rows) @ np.abs(g) + LOST)
    return bool((program.rows @ g > doubt).all())


def _open_features(program: BallProgram) -> tuple[Index, Index, Array]:
    """Return the features without faces, those with one, and the sign of the latter's face."""
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    one = np.flatnonzero(low ^ high)
    return np.flatnonzero(~low & ~high), one, np.where(low[one], 1.0, -1.0)


def _propose_weights(program: BallProgram) -> Array | None:
    """Return weights (M,) of the rows, as strict as HiGHS finds them."""
    free, one, sign = _open_features(program)
    rows = program.rows / program.norm[:, None]
    m = len(rows)
    # λ = x + t / M with x >= 0: every weight is at least t / M
    mean = rows.mean(axis=0)
    faces = np.column_stack([(rows[:, one] * sign).T, mean[one] * sign + 1.0])
    balance = np.column_stack([rows[:, free].T, mean[free]])
    found = minimise(
        np.append(np.zeros(m), -1.0),
        np.append(np.zeros(m), -np.inf),
        np.append(np.full(m, np.inf), 1.0),
        rows=faces,
        right=np.zeros(len(one)),
        equal=np.vstack([balance, np.ones(m + 1)]),
        equal_right=np.append(np.zeros(len(free)), 1.0),
    )
    if found is None or found.x[-1] <= 0:
        return None
    weights: Array = np.maximum(found.x[:m], 0.0) + found.x[m] / m
    return weights / program.norm


def _keeps_bounded(program: BallProgram, weights: Array) -> bool:
    """Whether the recession cone is {0}, proved."""
    free, one, sign = _open_features(program)
    gamma, rows = program.gamma, program.rows
    u = weights @ rows
    error = gamma * (weights @ np.abs(rows) + LOST)
    moved = correction_bound(rows[:, free].T, u[free], error[free])
    if not moved < weights.min():
        return False
    error = error + moved * np.linalg.norm(rows, axis=0) * (1 + gamma)
    return bool((u[one] * sign + error[one] < 0).all())
