"""The largest ball of a region or facet: proposed by HiGHS, certified in float64.

See :mod:`fsboundary.geometry.regions.certify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fsboundary.core.status import Status
from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import (
    BallProgram,
    BallProposal,
)
from fsboundary.geometry.regions.ball_proposals import (
    RADIUS_CAP,
    propose_ball,
    propose_direction,
)
from fsboundary.geometry.regions.certify import (
    BallProof,
    ball_radius,
    ball_status,
    certify_ball,
    is_whole,
    proves_unbounded,
    radius_bound,
)

_MAX_ROUNDS = 3
"""Each round is solved about the centre of the last, which resolves a distant or thin set."""

_TILT = 1e-6
"""Relative loss of the bound by tilting; it decides all sets except those that nearly touch."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargestBall:
    """Certified bounds of the largest ball.

    Attributes
    ----------
    status : Status
        Status CONVERGED (the two bounds meet), UNBOUNDED, INFEASIBLE (proved that there is no
        ball), DUPLICATE, INACCURATE (there is a ball, the bounds do not meet) or UNDECIDED.
    lower, upper : float
        Bounds of the radius; `lower` is not above 0 where no ball was found.
    centre : array (f,)
        Centre of a ball of radius `lower`; NaN where none was found.
    num_programs : int
        Number of linear programs solved.
    proof : BallProof or None
        Proof of the bounds; None where an exact comparison decides, or where it was dropped.
    """

    status: Status
    lower: float
    upper: float
    centre: Array
    num_programs: int
    proof: BallProof | None


def largest_ball(space: Arrangement, program: BallProgram | Status) -> LargestBall:
    """Return the largest ball of a region or facet, or what an exact comparison decided of it."""
    if isinstance(program, Status):
        return _decided_ball(space, program)
    with np.errstate(all="ignore"):  # what is not finite proves nothing
        return _BallSearch(space, program).run()


def certified_ball(
    space: Arrangement, program: BallProgram | Status, proof: BallProof, num_programs: int
) -> LargestBall:
    """Return the ball that `proof` proves; no program is solved, they were before."""
    if isinstance(program, Status):
        return _decided_ball(space, program)
    with np.errstate(all="ignore"):
        status, lower, upper = certify_ball(program, proof)
    return LargestBall(
        status=status,
        lower=lower,
        upper=upper,
        centre=proof.centre if lower > 0 else np.full(space.width, np.nan),
        num_programs=num_programs,
        proof=proof,
    )


def _decided_ball(space: Arrangement, status: Status) -> LargestBall:
    return LargestBall(
        status=status,
        lower=-np.inf,
        upper=np.inf if status == Status.UNDECIDED else -np.inf,
        centre=np.full(space.width, np.nan),
        num_programs=0,
        proof=None,
    )


@final
class _BallSearch:
    """Search state: the best lower and upper bound so far."""

    def __init__(self, space: Arrangement, program: BallProgram) -> None:
        self.space, self.program = space, program
        self.lower, self.upper = -np.inf, np.inf
        self.bound: BallProposal | None = None
        self.ray: Array | None = None
        self.centre = np.full(space.width, np.nan)
        self.num_programs = 0

    def run(self) -> LargestBall:
        """Run the search and return the certified ball."""
        program = self.program
        start = np.clip(np.zeros(self.space.width), self.space.lower, self.space.upper)
        start = np.clip(program.project(start), self.space.lower, self.space.upper)
        unit = _unit(program, start)
        if is_whole(program):
            self._add_centre(start)
            return self._unbounded()
        cap = None if program.is_box else RADIUS_CAP
        for _ in range(_MAX_ROUNDS):
            ball = self._propose(start, unit, cap)
            if ball is None:
                break
            if ball.capped:
                if self._is_unbounded(start, ball):
                    return self._unbounded()
                cap = None
                continue
            self._add_bound(ball)
            self._add_centre(ball.centre)
            if np.isinf(self.upper):
                self._bound_by_tilting(start, unit)
            if self._status() in (Status.CONVERGED, Status.INFEASIBLE):
                break
            start = np.clip(ball.centre, self.space.lower, self.space.upper)
            unit = _power_of_two(max(abs(self.lower), abs(self.upper), 1e-6 * unit), unit)
        return self._result(self._status())

    def _propose(self, start: Array, unit: float, cap: float | None) -> BallProposal | None:
        self.num_programs += 1
        return propose_ball(self.program, start, unit, cap=cap)

    def _bound_by_tilting(self, start: Array, unit: float) -> None:
        """Set the upper bound from multipliers that are slightly suboptimal but provable."""
        self.num_programs += 1
        ball = propose_ball(self.program, start, unit, cap=None, tilt=_TILT)
        if ball is not None:
            self._add_bound(ball)

    def _add_bound(self, ball: BallProposal) -> None:
        """Keep the multipliers of `ball` if their bound is the smallest so far."""
        upper = radius_bound(self.program, ball)
        if upper < self.upper:
            self.upper, self.bound = upper, ball

    def _add_centre(self, z: Array) -> float:
        """Keep `z`, projected on the tie and the domain, if its ball is the largest so far."""
        for _ in range(2):
            z = np.clip(self.program.project(z), self.space.lower, self.space.upper)
        radius = ball_radius(self.program, z)
        if radius > max(self.lower, 0.0):
            self.lower, self.centre = radius, z
        return radius

    def _is_unbounded(self, start: Array, ball: BallProposal) -> bool:
        """Return whether a ray proves it; the direction of the capped ball usually does."""
        outward = ball.centre - start
        ray: Array | None = outward
        if not proves_unbounded(self.program, outward):
            self.num_programs += 1
            ray = propose_direction(self.program, strict=True)
            if ray is None or not proves_unbounded(self.program, ray):
                self._add_centre(ball.centre)
                return False
        # the nearest centre whose ball is as large as the scale of the planes
        for fraction in (1 / RADIUS_CAP, 10 / RADIUS_CAP, 100 / RADIUS_CAP, 1.0):
            if self._add_centre(start + fraction * outward) > 0:
                break
        self.ray = ray if self.lower > 0 else None
        return self.ray is not None

    def _unbounded(self) -> LargestBall:
        if not self.lower > 0:
            return self._result(Status.UNDECIDED)
        self.lower = self.upper = np.inf
        return self._result(Status.UNBOUNDED)

    def _status(self) -> Status:
        return ball_status(self.lower, self.upper, self.centre)

    def _result(self, status: Status) -> LargestBall:
        return LargestBall(
            status=status,
            lower=self.lower,
            upper=self.upper,
            centre=self.centre,
            num_programs=self.num_programs,
            proof=BallProof(centre=self.centre, bound=self.bound, ray=self.ray),
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
    """Return a power of two near `value`, so that division by it is exact, or `otherwise`."""
    if not (np.isfinite(value) and value > 0):
        return otherwise
    return float(np.ldexp(1.0, int(np.clip(np.frexp(value)[1], -1000, 1000))))
