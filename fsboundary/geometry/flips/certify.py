"""Certificates of flip points, tie points and region distances.

Everything is recomputed in float64 from the head, the rows and the proposed points and multipliers;
a solver's own distances and statuses are never read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.status import Status
from fsboundary.core.tolerance import TOO_FAR, absolute, dot_error
from fsboundary.geometry.flips.bounds import dual_bound, dual_exclusion_radius
from fsboundary.geometry.flips.constraints import (
    ConstraintOperator,
    DenseConstraints,
    FactoredConstraints,
)
from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems, compress, expand
from fsboundary.geometry.norms import TINY, lengths


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """The unverified solutions of a finder for P problems.

    Attributes
    ----------
    points : Tensor (P, d)
        Points z', or NaN.
    active, multipliers : Tensor (P, S)
        Slots and multipliers as in :class:`fsboundary.core.results.FlipPoints`.
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
    """Graded solutions of P problems; fields as in :class:`fsboundary.core.results.FlipPoints`."""

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
    ceiling: Float64[Tensor, " P"] | None = None,
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
    points: Float64[Tensor, "P d"],
    lam: Float64[Tensor, "P K"],
    steps: Int[Tensor, " P"],
    *,
    rtol: float,
    max_steps: int,
    ceiling: Float64[Tensor, " P"] | None = None,
) -> Grade:
    """Grade proposed points (design.md, section 1, "Gap, everywhere").

    Problems that miss the tolerance when the constraints are evaluated through the logits, or are
    infeasible within a radius only, are evaluated again with dense rows, whose rounding is
    smaller: classes with equal or nearly equal weights need that. Points that violate a constraint
    by more than any rounding are not, because nothing but another point helps them. The caller
    makes chunks: arrays are (P,d) and (P,K), and (P,K,d) for the problems graded again.

    Parameters
    ----------
    problems : DualProblems
        P problems with finite rows inside the domain.
    points : Tensor (P, d), float64
    lam : Tensor (P, K)
        Admissible multipliers.
    steps : Tensor (P,)
    rtol : float
        Relative tolerance: CONVERGED requires gap and violation to be at most
        ``max(1e-9 scale, rtol * distance)``.
    max_steps : int
        Number of steps from which failed rows are MAX_STEPS; others are INACCURATE.
    ceiling : Tensor (P,), optional
        Upper limit of every lower bound, applied before the gap is checked.
    """
    cap = torch.full_like(points[:, 0], torch.inf) if ceiling is None else ceiling
    grade, hopeless = _grade(problems, FactoredConstraints(problems), points, lam, rtol, cap)
    open_rows = (grade.status != Status.CONVERGED) & torch.isfinite(grade.lower_bound)
    again = (open_rows & ~hopeless).nonzero()[:, 0]
    # splitting nothing would give one empty piece
    for index in again.split(DenseConstraints.batch_size(problems)) if len(again) else ():
        part = problems.take(index)
        dense = DenseConstraints(part)
        better, _ = _grade(part, dense, points[index], lam[index], rtol, cap[index])
        # both bounds hold; a converged entry keeps the one that its gap was computed with
        first, second = grade.lower_bound[index], better.lower_bound
        done = better.status == Status.CONVERGED
        grade.lower_bound[index] = torch.where(done, second, torch.maximum(first, second))
        is_final = _is_final(grade.status[index]) & ~_is_final(better.status)
        for name in ("distance", "gap", "violation", "status"):
            value = getattr(grade, name)
            value[index] = torch.where(is_final, value[index], getattr(better, name))
    return _finish(grade, lam, steps, max_steps)


def _is_final(status: Tensor) -> Tensor:
    return (status == Status.CONVERGED) | (status == Status.INFEASIBLE)


def _grade(
    problems: DualProblems,
    operator: ConstraintOperator,
    points: Tensor,
    lam: Tensor,
    rtol: float,
    cap: Tensor,
) -> tuple[Grade, Tensor]:
    """Grade with the given constraint operator; multipliers stay as they are.

    Also returned is which points (P,) violate a constraint however the values are rounded.
    """
    z, domain = problems.z, problems.head.domain
    bound, u = dual_bound(problems, operator, lam, operator.at_rows())
    bound = torch.minimum(bound, cap)
    distance, end = lengths(points - z), lengths(points)
    violation, rounding = _row_violation(problems, operator, points, end)
    violation = torch.maximum(violation, lengths(points - domain.clip(points)))
    allowed = torch.maximum(absolute(lengths(z) + end), rtol * distance)
    # NaN compares false, so a point that is not finite never passes
    converged = ((distance - bound).abs() <= allowed) & (violation <= allowed)
    converged &= torch.isfinite(allowed)
    # lowering a bound keeps it valid, and makes the gap nonnegative
    bound = torch.where(converged, torch.minimum(bound, distance), bound)
    status = torch.where(converged, int(Status.CONVERGED), int(Status.INACCURATE))
    failed = (~converged).nonzero()[:, 0]
    hopeless = torch.isfinite(violation) & (violation - rounding > allowed)
    if len(failed):
        part = problems.take(failed)
        radius = dual_exclusion_radius(part, operator.take(failed), lam[failed], u[failed])
        radius = torch.minimum(radius, cap[failed])
        infeasible = torch.isinf(radius) | (radius > TOO_FAR * _scale(part))
        bound[failed] = torch.maximum(bound[failed], radius)
        status[failed] = torch.where(infeasible, int(Status.INFEASIBLE), status[failed])
        # far more than the point's distance may be the start of a proof that there is none
        hopeless[failed] &= radius <= 2 * distance[failed]
        distance[failed] = torch.where(infeasible, torch.inf, torch.nan).to(distance)
    gap = torch.where(torch.isinf(bound), 0.0, distance - bound)
    grade = Grade(
        points=points,
        distance=distance,
        lower_bound=bound,
        gap=gap,
        violation=violation,
        active=lam,
        multipliers=lam,
        status=status,
    )
    return grade, hopeless


def _row_violation(
    problems: DualProblems, operator: ConstraintOperator, points: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the largest distance (P,) of `points` to the constraints they violate.

    Raised by the rounding of its own evaluation: a slack that rounds to 0 may be violated by far
    more than the tolerance where two rows nearly agree. `end` is the length of each point. Also
    returned is a bound (P,) of the error of the raised distance.
    """
    norms = problems.row_norms()
    size, offset_size = operator.sizes()
    gamma = dot_error(points.shape[1] + 8)
    # products of zeros do not underflow
    lost = (TINY * (end > 0).to(end))[:, None]
    doubt = gamma * (size * end[:, None] + offset_size + lost)
    violation = problems.violations(points, end, operator.values(points), doubt, gamma)
    constant = norms == 0
    if bool(constant.any()):
        # equal weight rows: the constraint compares the biases only, and holds exactly or nowhere
        infinite = torch.where(problems.infeasible_constants(), torch.inf, 0.0).to(norms)
        violation = torch.where(constant, infinite, violation / norms)
    else:
        violation = violation / norms
    # an overflow hides the violation
    worst = torch.where(torch.isinf(norms), torch.nan, violation).amax(dim=1)
    # raised once, and rounded by as much again
    rounding = 2 * torch.where(constant, 0.0, doubt / norms).amax(dim=1)
    return torch.where(torch.isfinite(points).all(dim=1), worst, torch.nan), rounding


def _scale(problems: DualProblems) -> Tensor:
    """Return |z| plus the largest distance of a constraint's plane from the origin, (P,)."""
    norms = problems.row_norms()
    b, other = problems.of_both_classes(problems.head._bias)
    offsets = (b - other).abs()
    planes = torch.where(norms > 0, offsets / norms, 0.0).amax(dim=1)
    length: Tensor = torch.linalg.vector_norm(problems.z, dim=1)
    return length + planes


def _finish(grade: Grade, lam: Tensor, steps: Tensor, max_steps: int) -> Grade:
    """Set failed entries to NaN and compress the multipliers to (P,S)."""
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


def grade_own_region(
    others: dict[str, Tensor],
    points_at: Callable[[Tensor], Tensor],
    z: Float64[Tensor, "B d"],
    rtol: float,
    floor: Float64[Tensor, " B"] | None = None,
) -> tuple[dict[str, Tensor], Int[Tensor, " B"]]:
    """Return the fields (B,1) of the row's own region, and the index (B,) of the nearest other.

    A path that leaves a region enters another one at the same point, so the distance to the end of
    the region is the smallest distance to another region.

    Parameters
    ----------
    others : dict of str to Tensor
        Graded fields (B,C) of the distances to the other regions.
    points_at : callable
        Function from columns (B,) to the graded points (B,d) there.
    z : Tensor (B, d), float64
        The rows.
    rtol : float
        Tolerance of the gap relative to the distance.
    floor : Tensor (B,), optional
        Certified lower bound of the distances to the regions that have no column in `others`.
        Default: there are none.
    """
    known = torch.where(torch.isnan(others["distance"]), torch.inf, others["distance"])
    distance, nearest = known.min(dim=1, keepdim=True)
    bound, lowest = others["lower_bound"].min(dim=1, keepdim=True)
    rest = torch.full_like(bound, torch.inf) if floor is None else floor[:, None]
    bound = torch.minimum(torch.minimum(bound, rest), distance)
    end = points_at(nearest[:, 0])
    allowed = torch.maximum(absolute(lengths(z) + lengths(end)), rtol * distance[:, 0])[:, None]
    converged = torch.isfinite(distance) & (distance - bound <= allowed)
    # if the gap stays open, the region with the lowest bound may be nearer
    reason = others["status"].gather(1, lowest)
    reason = torch.where(reason == Status.CONVERGED, int(Status.INACCURATE), reason)
    none = (others["status"] == Status.INFEASIBLE).all(dim=1, keepdim=True) & torch.isinf(rest)
    status = torch.where(converged, int(Status.CONVERGED), reason)
    status = torch.where(none, int(Status.UNBOUNDED), status)
    failed = ~(converged | none)
    violation = others["violation"].gather(1, nearest)
    own = {
        "distance": torch.where(failed, torch.nan, distance),
        "lower_bound": bound,
        "gap": torch.where(
            failed, torch.nan, torch.where(torch.isinf(bound), 0.0, distance - bound)
        ),
        "violation": torch.where(failed, torch.nan, violation),
        "status": status,
    }
    return own, nearest[:, 0]
