"""Balls and directions proposed by HiGHS, to be certified before use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.linear_programs import LPSolution, solve_lp
from fsboundary.geometry.regions.arrangement import Index, Mask
from fsboundary.geometry.regions.ball_programs import BallProgram, BallProposal

RADIUS_CAP = 1e3
"""A ball of this many units indicates that balls of any size may fit."""

_MANY_FACES = 64
"""Number of two-sided faces above which they are kept sparse and the interior point method is used:
they take the dual simplex thousands of steps."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ShiftedFaces:
    """The faces of a program relative to the reference point and unit of a proposal.

    Attributes
    ----------
    low, high : array (f,)
    has_low, has_high : array (f,), bool
    start : array (f,)
        The finite limit from which each variable is measured, the lower one first; 0 if none.
    inward : array (f,)
        Change of the variable's bound per unit of radius.
    two : array of int
        Features with two faces.
    """

    low: Array
    high: Array
    has_low: Mask
    has_high: Mask
    start: Array
    inward: Array
    two: Index


def propose_ball(
    program: BallProgram,
    reference: Float64[Array, " f"],
    unit: float,
    *,
    cap: float | None,
    tilt: float = 0.0,
) -> BallProposal | None:
    """Return HiGHS's largest ball, or None where it found none.

    The program is shifted by `reference` (f,) and divided by `unit` first. For features with one
    finite limit the variable is ``z_q - lo_q - r p_q``, whose bound represents the face; two-sided
    ones have ``z_q - lo_q - r p_q >= 0`` as a bound and ``... + 2 r p_q <= hi_q - lo_q`` as a row.
    With `tilt` the objective also rewards, with this weight, distance to the only face of a
    feature: the rows then pull towards that face by more than rounding, which their proof needs
    where they would balance without the face.
    """
    rows, offset, along_tie = _project_rows(program)
    faces = _shift_faces(program, reference, unit)
    matrix, rhs = _inequalities(program, faces, rows, offset, reference, unit)
    eq_matrix, eq_rhs = _tie_equation(program, faces, reference, unit)
    inward, has_low, has_high = faces.inward, faces.has_low, faces.has_high
    solution = solve_lp(
        np.append(tilt * np.where(has_low ^ has_high, -np.sign(inward), 0.0), -1.0),
        np.append(np.where(has_low, 0.0, -np.inf), -np.inf),
        np.append(np.where(has_high & ~has_low, 0.0, np.inf), np.inf if cap is None else cap),
        ineq_matrix=matrix,
        ineq_rhs=rhs,
        eq_matrix=eq_matrix,
        eq_rhs=eq_rhs,
        method="highs-ipm" if len(faces.two) > _MANY_FACES else "highs-ds",
    )
    if solution is None:
        return None
    return _ball_of(program, faces, solution, along_tie, reference, unit, cap)


def _shift_faces(program: BallProgram, reference: Array, unit: float) -> _ShiftedFaces:
    """Return the faces, shifted by `reference` and divided by `unit`."""
    low, high = (program.lower - reference) / unit, (program.upper - reference) / unit
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    return _ShiftedFaces(
        low=low,
        high=high,
        has_low=has_low,
        has_high=has_high,
        start=np.where(has_low, low, np.where(has_high, high, 0.0)),
        inward=np.where(has_low, program.face_norm, np.where(has_high, -program.face_norm, 0.0)),
        two=np.flatnonzero(has_low & has_high),
    )


def _inequalities(
    program: BallProgram,
    faces: _ShiftedFaces,
    rows: Array,
    offset: Array,
    reference: Array,
    unit: float,
) -> tuple[Array | sparse.csc_array, Array]:
    """Return matrix and right side of the rows and of the two-sided features' upper faces."""
    two, f = faces.two, len(reference)
    matrix: Array | sparse.csc_array = np.column_stack([-rows, 1 - rows @ faces.inward])
    rhs = np.concatenate(
        [
            (rows @ reference + offset) / unit + rows @ faces.start,
            faces.high[two] - faces.low[two],
        ]
    )
    if len(two):
        index = np.arange(len(two))
        upper_faces = sparse.csc_array(
            (
                np.concatenate([np.ones(len(two)), 2 * program.face_norm[two]]),
                (np.tile(index, 2), np.concatenate([two, np.full(len(two), f)])),
            ),
            shape=(len(two), f + 1),
        )
        if len(two) > _MANY_FACES:
            matrix = sparse.vstack([sparse.csc_array(matrix), upper_faces], format="csc")
        else:
            matrix = np.vstack([matrix, upper_faces.toarray()])
    return matrix, rhs


def _tie_equation(
    program: BallProgram, faces: _ShiftedFaces, reference: Array, unit: float
) -> tuple[Array, Array] | tuple[None, None]:
    """Return matrix and right side of the tie's equation, None for a region."""
    if not program.tie_norm > 0:
        return None, None
    normal = program.tie / program.tie_norm
    at = (program.tie @ reference + program.tie_offset) / (program.tie_norm * unit)
    return np.append(normal, normal @ faces.inward)[None], np.array([-at - normal @ faces.start])


def _ball_of(
    program: BallProgram,
    faces: _ShiftedFaces,
    solution: LPSolution,
    along_tie: Array,
    reference: Array,
    unit: float,
    cap: float | None,
) -> BallProposal:
    """Return the solution of the shifted program in the units of `program`."""
    f, count = len(reference), len(program.rows)
    y, radius = solution.x[:f], float(solution.x[f])
    high = solution.upper_duals[:f].copy()
    high[faces.two] = solution.ineq_duals[count:]
    multipliers = solution.ineq_duals[:count] / program.norm
    tie = -float(multipliers @ along_tie)
    if program.tie_norm > 0:
        tie += float(solution.eq_duals[0]) / program.tie_norm
    return BallProposal(
        centre=reference + unit * (y + faces.start + faces.inward * radius),
        multipliers=multipliers,
        tie=tie,
        low=solution.lower_duals[:f],
        high=high,
        capped=cap is not None and radius >= 0.999 * cap,
    )


def propose_direction(program: BallProgram, *, strict: bool) -> Float64[Array, " f"] | None:
    """Return g (f,), entries within 1, along which no slack decreases, or None.

    ``a_m.g >= t p_m`` for the largest t > 0. With `strict` g also leaves every face, so that balls
    may grow along it; else it may be parallel to faces, and two-sided features do not move.
    """
    rows, _, _ = _project_rows(program)
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    lower = np.where(low, 0.0, -1.0)
    upper = np.where(high, 0.0, 1.0)
    blocks = [np.column_stack([-rows, np.ones(len(rows))])]
    if strict:
        eye, norm = np.eye(len(low)), program.face_norm
        blocks.append(np.column_stack([-eye[low], norm[low]]))
        blocks.append(np.column_stack([eye[high], norm[high]]))
    matrix = np.vstack(blocks)
    normal = None if program.tie_norm == 0 else np.append(program.tie / program.tie_norm, 0.0)[None]
    solution = solve_lp(
        np.append(np.zeros(len(low)), -1.0),
        np.append(lower, 0.0),
        np.append(upper, np.inf),
        ineq_matrix=matrix,
        ineq_rhs=np.zeros(len(matrix)),
        eq_matrix=normal,
        eq_rhs=None if normal is None else np.zeros(1),
    )
    return None if solution is None or solution.x[-1] <= 0 else solution.x[:-1]


def _project_rows(program: BallProgram) -> tuple[Array, Array, Array]:
    """Return unit rows and offsets on the tie's plane, and each row's coefficient of the tie."""
    along_tie = np.zeros(len(program.rows))
    rows, offset = program.rows, program.offset
    if program.tie_norm > 0:
        along_tie = rows @ program.tie / program.tie_norm**2
        rows = rows - along_tie[:, None] * program.tie
        offset = offset - along_tie * program.tie_offset
    return rows / program.norm[:, None], offset / program.norm, along_tie
