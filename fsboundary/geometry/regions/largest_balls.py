"""The largest ball of a region or facet: HiGHS proposes, :mod:`certify_regions` decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_SHARE, FLIP_RTOL
from fsboundary.geometry.linear_programs import Array
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import BallProgram, facet_program, region_program
from fsboundary.geometry.regions.ball_proposals import CAP, Ball, propose_ball, propose_direction
from fsboundary.geometry.regions.certify import ball_radius, grows_without_end, radius_bound

ROUNDS = 3
"""Each round is solved about the centre of the last, which takes a far or thin set apart."""


TILT = 1e-6
"""Costs about this share of the bound, which decides all sets but those that nearly touch."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BallAnswer:
    """What is known of the largest ball.

    Attributes
    ----------
    status : Status
        CONVERGED (the two bounds meet), UNBOUNDED, INFEASIBLE (no ball, proved), DUPLICATE,
        INACCURATE (there is a ball, the bounds are apart) or UNDECIDED.
    lower, upper : float
        Bounds of the radius; `lower` is not above 0 where no ball was found.
    centre : array (f,)
        Of a ball of radius `lower`; NaN where none was found.
    programs : int
        Linear programs solved.
    """

    status: Status
    lower: float
    upper: float
    centre: Array
    programs: int


def largest_region_ball(space: Arrangement, i: int) -> BallAnswer:
    """Return the Chebyshev ball of region `i` within the domain."""
    return _answer(space, region_program(space, i))


def largest_facet_ball(space: Arrangement, i: int, j: int) -> BallAnswer:
    """Return the largest ball of the facet of `i` and `j`, measured on their tie."""
    return _answer(space, facet_program(space, i, j))


def _answer(space: Arrangement, program: BallProgram | Status) -> BallAnswer:
    nowhere = np.full(space.width, np.nan)
    if isinstance(program, Status):
        upper = np.inf if program == Status.UNDECIDED else -np.inf
        return BallAnswer(status=program, lower=-np.inf, upper=upper, centre=nowhere, programs=0)
    with np.errstate(all="ignore"):  # what is not finite proves nothing
        return _Search(space, program).run()


@final
class _Search:
    """The best lower and upper bound so far."""

    def __init__(self, space: Arrangement, program: BallProgram) -> None:
        self.space, self.program = space, program
        self.lower, self.upper = -np.inf, np.inf
        self.centre = np.full(space.width, np.nan)
        self.programs = 0

    def run(self) -> BallAnswer:
        """Return the answer."""
        program = self.program
        start = np.clip(np.zeros(self.space.width), self.space.lower, self.space.upper)
        start = np.clip(program.project(start), self.space.lower, self.space.upper)
        unit = _unit(program, start)
        if len(program.rows) == 0 and not self._has_faces():
            self._try(start)
            return self._unbounded()
        limited = program.is_box
        cap = None if limited else CAP
        for _ in range(ROUNDS):
            ball = self._propose(start, unit, cap)
            if ball is None:
                break
            if ball.capped:
                if self._is_unbounded(start, ball):
                    return self._unbounded()
                cap = None
                continue
            self.upper = min(self.upper, radius_bound(program, ball))
            self._try(ball.centre)
            if np.isinf(self.upper):
                self._tilt(start, unit)
            if self._status() in (Status.CONVERGED, Status.INFEASIBLE):
                break
            start = np.clip(ball.centre, self.space.lower, self.space.upper)
            unit = _power_of_two(max(abs(self.lower), abs(self.upper), 1e-6 * unit), unit)
        return self._result(self._status())

    def _has_faces(self) -> bool:
        program = self.program
        return bool(np.isfinite(program.lower).any() or np.isfinite(program.upper).any())

    def _propose(self, start: Array, unit: float, cap: float | None) -> Ball | None:
        self.programs += 1
        return propose_ball(self.program, start, unit, cap=cap)

    def _tilt(self, start: Array, unit: float) -> None:
        """Take a bound from multipliers that are a little off the best ones, but provable."""
        self.programs += 1
        ball = propose_ball(self.program, start, unit, cap=None, tilt=TILT)
        if ball is not None:
            self.upper = radius_bound(self.program, ball)

    def _try(self, z: Array) -> float:
        """Keep `z`, moved onto the tie and into the domain, if its ball is the largest so far."""
        for _ in range(2):
            z = np.clip(self.program.project(z), self.space.lower, self.space.upper)
        radius = ball_radius(self.program, z)
        if radius > max(self.lower, 0.0):
            self.lower, self.centre = radius, z
        return radius

    def _is_unbounded(self, start: Array, ball: Ball) -> bool:
        """Whether a ray proves it; the way to the capped ball is mostly one already."""
        way = ball.centre - start
        if not grows_without_end(self.program, way):
            self.programs += 1
            found = propose_direction(self.program, strict=True)
            if found is None or not grows_without_end(self.program, found):
                self._try(ball.centre)
                return False
        # the nearest centre whose ball is as large as the scale of the planes
        for share in (1 / CAP, 10 / CAP, 100 / CAP, 1.0):
            if self._try(start + share * way) > 0:
                break
        return self.lower > 0

    def _unbounded(self) -> BallAnswer:
        if not self.lower > 0:
            return self._result(Status.UNDECIDED)
        self.lower = self.upper = np.inf
        return self._result(Status.UNBOUNDED)

    def _status(self) -> Status:
        if self.upper <= 0:
            return Status.INFEASIBLE
        if not self.lower > 0:
            return Status.UNDECIDED
        scale = float(np.linalg.norm(self.centre)) + self.lower
        allowed = max(ATOL_SHARE * scale, FLIP_RTOL * self.lower)
        done = self.upper - self.lower <= allowed
        return Status.CONVERGED if done else Status.INACCURATE

    def _result(self, status: Status) -> BallAnswer:
        return BallAnswer(
            status=status,
            lower=self.lower,
            upper=self.upper,
            centre=self.centre,
            programs=self.programs,
        )


def _unit(program: BallProgram, start: Array) -> float:
    """Return the typical distance of `start` to the planes, or a typical width of the domain."""
    distances = np.abs(program.rows @ start + program.offset) / program.norm
    widths = program.upper - program.lower
    typical = float(np.median(distances)) if len(distances) else 0.0
    finite = widths[np.isfinite(widths)]
    if typical == 0 and len(finite):
        typical = float(np.median(finite))
    return _power_of_two(typical, 1.0)


def _power_of_two(value: float, otherwise: float) -> float:
    """Return a power of two near `value`, by which division is exact."""
    if not (np.isfinite(value) and value > 0):
        return otherwise
    return float(np.ldexp(1.0, int(np.clip(np.frexp(value)[1], -1000, 1000))))
