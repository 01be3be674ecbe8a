"""The one place that decides CONVERGED: everything is recomputed in float64 from raw inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.status import Status
from fsboundary.core.tolerance import TOO_FAR, absolute, dot_error
from fsboundary.geometry.flips.bounds import dual_bound, reach_bound
from fsboundary.geometry.flips.constraints import ClassRows, ConstraintRows, ExplicitRows
from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems, compress, expand
from fsboundary.geometry.norms import TINY, lengths


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """What a finder says of P problems: nothing here is believed.

    Attributes
    ----------
    points : Tensor (P, d)
        z', or NaN.
    active, multipliers : Tensor (P, S)
        As in :class:`fsboundary.core.results.FlipPoints`.
    steps : Tensor (P,)
    """

    points: Tensor
    active: Tensor
    multipliers: Tensor
    steps: Tensor

    def take(self, index: Tensor | slice) -> Proposal:
        """Return the proposals at `index`."""
        return Proposal(
            points=self.points[index],
            active=self.active[index],
            multipliers=self.multipliers[index],
            steps=self.steps[index],
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grade:
    """Graded answers of P problems; fields as in :class:`fsboundary.core.results.FlipPoints`."""

    points: Tensor
    distance: Tensor
    lower_bound: Tensor
    gap: Tensor
    violation: Tensor
    active: Tensor
    multipliers: Tensor
    status: Tensor


def grade_flips(
    problems: FlipProblems,
    proposal: Proposal,
    *,
    rtol: float,
    max_steps: int,
    ceiling: Tensor | None = None,
) -> Grade:
    """Grade proposed flip points; see :func:`grade_solutions`.

    Parameters
    ----------
    problems : FlipProblems
        P problems with finite rows inside the domain and targets other than the source.
    proposal : Proposal
    rtol, max_steps, ceiling
    """
    lam = expand(problems, proposal.active, proposal.multipliers)
    points = proposal.points.to(torch.float64)
    return grade_solutions(
        problems, points, lam, proposal.steps, rtol=rtol, max_steps=max_steps, ceiling=ceiling
    )


def grade_solutions(
    problems: DualProblems,
    points: Tensor,
    lam: Tensor,
    steps: Tensor,
    *,
    rtol: float,
    max_steps: int,
    ceiling: Tensor | None = None,
) -> Grade:
    """Grade proposed points (design.md, section 1, "Gap, everywhere").

    Problems that miss the tolerance when the constraints are evaluated through the logits, or are
    infeasible within a radius only, are evaluated again with explicit rows, whose rounding is
    smaller: classes with equal or nearly equal weights need that. The caller chunks: work arrays
    are (P,d) and (P,K), and (P,K,d) for the problems graded again.

    Parameters
    ----------
    problems : DualProblems
        P problems with finite rows inside the domain.
    points : Tensor (P, d), float64
    lam : Tensor (P, K)
        Admissible multipliers.
    steps : Tensor (P,)
    rtol : float
        CONVERGED needs gap and violation at most ``max(1e-9 scale, rtol * distance)``.
    max_steps : int
        Rows that failed after this many steps are MAX_STEPS, others INACCURATE.
    ceiling : Tensor (P,), optional
        Every lower bound is cut to it before the gap is judged.
    """
    cap = torch.full_like(points[:, 0], torch.inf) if ceiling is None else ceiling
    grade = _grade(problems, ClassRows(problems), points, lam, rtol, cap)
    again = ((grade.status != Status.CONVERGED) & torch.isfinite(grade.lower_bound)).nonzero()[:, 0]
    # splitting nothing would give one empty piece
    for index in again.split(ExplicitRows.batch_size(problems)) if len(again) else ():
        part = problems.take(index)
        better = _grade(part, ExplicitRows(part), points[index], lam[index], rtol, cap[index])
        # both bounds hold; a converged entry keeps the one that its gap was judged with
        first, second = grade.lower_bound[index], better.lower_bound
        done = better.status == Status.CONVERGED
        grade.lower_bound[index] = torch.where(done, second, torch.maximum(first, second))
        keeps = _final(grade.status[index]) & ~_final(better.status)
        for name in ("distance", "gap", "violation", "status"):
            value = getattr(grade, name)
            value[index] = torch.where(keeps, value[index], getattr(better, name))
    return _finish(grade, lam, steps, max_steps)


def _final(status: Tensor) -> Tensor:
    return (status == Status.CONVERGED) | (status == Status.INFEASIBLE)


def _grade(
    problems: DualProblems,
    rows: ConstraintRows,
    points: Tensor,
    lam: Tensor,
    rtol: float,
    cap: Tensor,
) -> Grade:
    """Grade with the given way of evaluating constraints; multipliers stay as they are."""
    z, domain = problems.z, problems.head.domain
    bound, u = dual_bound(problems, rows, lam, rows.values(z))
    bound = torch.minimum(bound, cap)
    distance, end = lengths(points - z), lengths(points)
    violation = torch.maximum(
        _row_violation(problems, rows, points, end), lengths(points - domain.clip(points))
    )
    allowed = torch.maximum(absolute(lengths(z) + end), rtol * distance)
    # NaN compares false, so a point that is not finite never passes
    converged = ((distance - bound).abs() <= allowed) & (violation <= allowed)
    converged &= torch.isfinite(allowed)
    # lowering a bound keeps it true, and keeps the gap of an answer from being negative
    bound = torch.where(converged, torch.minimum(bound, distance), bound)
    status = torch.where(converged, int(Status.CONVERGED), int(Status.INACCURATE))
    failed = (~converged).nonzero()[:, 0]
    if len(failed):
        part = problems.take(failed)
        radius = reach_bound(part, rows.take(failed), lam[failed], u[failed])
        radius = torch.minimum(radius, cap[failed])
        none = torch.isinf(radius) | (radius > TOO_FAR * _scale(part))
        bound[failed] = torch.maximum(bound[failed], radius)
        status[failed] = torch.where(none, int(Status.INFEASIBLE), status[failed])
        distance[failed] = torch.where(none, torch.inf, torch.nan).to(distance)
    gap = torch.where(torch.isinf(bound), 0.0, distance - bound)
    return Grade(
        points=points,
        distance=distance,
        lower_bound=bound,
        gap=gap,
        violation=violation,
        active=lam,
        multipliers=lam,
        status=status,
    )


def _row_violation(
    problems: DualProblems, rows: ConstraintRows, points: Tensor, end: Tensor
) -> Tensor:
    """Return the largest distance (P,) of `points` to the constraints they break.

    Raised by the rounding of its own evaluation: a slack that rounds to 0 may be broken by far
    more than the tolerance where two rows nearly agree. `end` is the length of each point.
    """
    norms = problems.row_norms()
    size, offset_size = rows.sizes()
    gamma = dot_error(points.shape[1] + 8)
    # products of zeros do not underflow
    lost = (TINY * (end > 0).to(end))[:, None]
    doubt = gamma * (size * end[:, None] + offset_size + lost)
    broken = problems.misses(points, end, rows.values(points), doubt, gamma)
    constant = norms == 0
    if bool(constant.any()):
        # equal weight rows: the constraint is about the biases alone, met exactly or never
        lost = torch.where(problems.never(), torch.inf, 0.0).to(norms)
        broken = torch.where(constant, lost, broken / norms)
    else:
        broken = broken / norms
    # an overflow hides the violation
    worst = torch.where(torch.isinf(norms), torch.nan, broken).amax(dim=1)
    return torch.where(torch.isfinite(points).all(dim=1), worst, torch.nan)


def _scale(problems: DualProblems) -> Tensor:
    """Return |z| plus the largest distance of a constraint's plane from the origin, (P,)."""
    norms = problems.row_norms()
    b = problems.head.bias
    offsets = problems.per_slot((b[:, None] - b).abs())
    planes = torch.where(norms > 0, offsets / norms, 0.0).amax(dim=1)
    length: Tensor = torch.linalg.vector_norm(problems.z, dim=1)
    return length + planes


def _finish(grade: Grade, lam: Tensor, steps: Tensor, max_steps: int) -> Grade:
    """Blank the entries that failed and lay the multipliers out as (P,S)."""
    ran_out = (grade.status == Status.INACCURATE) & (steps >= max_steps)
    status = torch.where(ran_out, int(Status.MAX_STEPS), grade.status)
    failed = status != Status.CONVERGED
    active, multipliers = compress(lam)
    return Grade(
        points=torch.where(failed[:, None], torch.nan, grade.points),
        distance=grade.distance,
        lower_bound=grade.lower_bound,
        gap=grade.gap,
        violation=torch.where(failed, torch.nan, grade.violation),
        active=active,
        multipliers=multipliers,
        status=status,
    )
