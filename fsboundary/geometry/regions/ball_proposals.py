"""Balls and directions proposed by HiGHS. Nothing of it is believed before it is certified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import sparse

from fsboundary.geometry.linear_programs import Array, minimise
from fsboundary.geometry.regions.ball_programs import BallProgram

CAP = 1e3
"""A ball of this many units counts as a sign that balls of any size may fit."""

_MANY_FACES = 64
"""Above so many two-sided faces they are kept sparse, and the interior point method is faster: they
take the dual simplex thousands of steps."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ball:
    """A proposed centre and multipliers, in the program's own units.

    Attributes
    ----------
    centre : array (f,)
    multipliers : array (M,)
        Of the program's rows; >= 0.
    tie : float
        Multiplier of the tie.
    low, high : array (f,)
        Of the faces; >= 0 and 0 where there is no face.
    capped : bool
        The radius stopped at :data:`CAP` units.
    """

    centre: Array
    multipliers: Array
    tie: float
    low: Array
    high: Array
    capped: bool


def propose_ball(
    program: BallProgram, reference: Array, unit: float, *, cap: float | None, tilt: float = 0.0
) -> Ball | None:
    """Return HiGHS's largest ball, or None where it found none.

    The program is shifted by `reference` (f,) and divided by `unit` first. For features with one
    finite limit the variable is ``z_q - lo_q - r p_q``, whose bound stands for the face; two-sided
    ones have ``z_q - lo_q - r p_q >= 0`` as a bound and ``... + 2 r p_q <= hi_q - lo_q`` as a row.
    With `tilt` the objective also rewards, by so much, distance to the only face of a feature: then
    the rows pull towards that face by more than rounding, which their proof needs where they would
    balance without the face.
    """
    rows, offset, share = _projected(program)
    low, high = (program.lower - reference) / unit, (program.upper - reference) / unit
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    start = np.where(has_low, low, np.where(has_high, high, 0.0))
    inward = np.where(has_low, program.face_norm, np.where(has_high, -program.face_norm, 0.0))
    two = np.flatnonzero(has_low & has_high)
    f = len(reference)
    matrix: Array | sparse.csc_array = np.column_stack([-rows, 1 - rows @ inward])
    right = np.concatenate(
        [(rows @ reference + offset) / unit + rows @ start, high[two] - low[two]]
    )
    if len(two):
        place = np.arange(len(two))
        faces = sparse.csc_array(
            (
                np.concatenate([np.ones(len(two)), 2 * program.face_norm[two]]),
                (np.tile(place, 2), np.concatenate([two, np.full(len(two), f)])),
            ),
            shape=(len(two), f + 1),
        )
        if len(two) > _MANY_FACES:
            matrix = sparse.vstack([sparse.csc_array(matrix), faces], format="csc")
        else:
            matrix = np.vstack([matrix, faces.toarray()])
    equal, equal_right = None, None
    if program.tie_norm > 0:
        normal = program.tie / program.tie_norm
        at = (program.tie @ reference + program.tie_offset) / (program.tie_norm * unit)
        equal, equal_right = (
            np.append(normal, normal @ inward)[None],
            np.array([-at - normal @ start]),
        )
    found = minimise(
        np.append(tilt * np.where(has_low ^ has_high, -np.sign(inward), 0.0), -1.0),
        np.append(np.where(has_low, 0.0, -np.inf), -np.inf),
        np.append(np.where(has_high & ~has_low, 0.0, np.inf), np.inf if cap is None else cap),
        rows=matrix,
        right=right,
        equal=equal,
        equal_right=equal_right,
        method="highs-ipm" if len(two) > _MANY_FACES else "highs-ds",
    )
    if found is None:
        return None
    y, radius = found.x[:f], float(found.x[f])
    on_high = found.on_upper[:f].copy()
    on_high[two] = found.on_rows[len(rows) :]
    multipliers = found.on_rows[: len(rows)] / program.norm
    tie = -float(multipliers @ share)
    if equal is not None:
        tie += float(found.on_equal[0]) / program.tie_norm
    return Ball(
        centre=reference + unit * (y + start + inward * radius),
        multipliers=multipliers,
        tie=tie,
        low=found.on_lower[:f],
        high=on_high,
        capped=cap is not None and radius >= 0.999 * cap,
    )


def propose_direction(program: BallProgram, *, strict: bool) -> Array | None:
    """Return g (f,), entries within 1, along which no slack falls, or None.

    ``a_m.g >= t p_m`` for the largest t > 0. With `strict` g also leaves every face, so that balls
    may grow along it; else it may run along faces, and two-sided features stand still.
    """
    rows, _, _ = _projected(program)
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    least = np.where(low, 0.0, -1.0)
    most = np.where(high, 0.0, 1.0)
    matrix = [np.column_stack([-rows, np.ones(len(rows))])]
    if strict:
        eye, share = np.eye(len(low)), program.face_norm
        matrix.append(np.column_stack([-eye[low], share[low]]))
        matrix.append(np.column_stack([eye[high], share[high]]))
    stacked = np.vstack(matrix)
    normal = None if program.tie_norm == 0 else np.append(program.tie / program.tie_norm, 0.0)[None]
    found = minimise(
        np.append(np.zeros(len(low)), -1.0),
        np.append(least, 0.0),
        np.append(most, np.inf),
        rows=stacked,
        right=np.zeros(len(stacked)),
        equal=normal,
        equal_right=None if normal is None else np.zeros(1),
    )
    return None if found is None or found.x[-1] <= 0 else found.x[:-1]


def _projected(program: BallProgram) -> tuple[Array, Array, Array]:
    """Return unit rows and offsets on the tie's plane, and the tie's share of every row."""
    share = np.zeros(len(program.rows))
    rows, offset = program.rows, program.offset
    if program.tie_norm > 0:
        share = rows @ program.tie / program.tie_norm**2
        rows = rows - share[:, None] * program.tie
        offset = offset - share * program.tie_offset
    return rows / program.norm[:, None], offset / program.norm, share
