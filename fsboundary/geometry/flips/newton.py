"""Batched semismooth Newton method for the dual of flip and tie problems.

Minimise f(λ) = λᵀ(M z' + c) - ½|z' - z|² with z' = clip(z + Mᵀλ), slack multipliers >= 0: convex,
piecewise quadratic, gradient M z' + c, generalised Hessian M diag(free) Mᵀ. Each step solves the
Newton system on the constraints that are active or violated and projects (Bertsekas, "Projected
Newton methods for optimization problems with simple constraints", SIAM J. Control Optim. 20
(1982)), with a safeguarded line search along the projected arc. Solved problems leave the batch.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import ATOL_FRACTION, EPS, TOO_FAR
from fsboundary.geometry.batching import chunks
from fsboundary.geometry.flips.constraints import (
    ConstraintOperator,
    DenseConstraints,
    FactoredConstraints,
)
from fsboundary.geometry.flips.dual_problems import DualProblems
from fsboundary.geometry.norms import pair_norms

_TABLE_CLASSES = 24
"""Up to this many classes, all products of two weight rows are tabulated and one matrix product
makes every Hessian; above, rows are gathered for the active constraints only."""

_TABLE_SPREAD = 1e-4
"""The table works with products of rows, not of their differences, so it loses digits where two
rows nearly agree. Below this relative distance of rows they are gathered instead."""

_GATHER_BYTES = 32 << 20
"""Cap on one array of gathered rows (P,S,d); longer batches are built piece by piece."""

_INNER = 1e-3
"""The inner stopping tolerance is this fraction of what the certificate allows. Newton's last step
gains more digits than that, so the certificate does not fail because one is missing."""

_ARMIJO = 1e-4
_MAX_STALLED = 12
"""Consecutive steps that gain nothing beyond rounding before a row is given up."""

_RIDGE_MIN, _RIDGE_FIRST, _RIDGE_UP, _RIDGE_DOWN = 1e-13, 1e-8, 30.0, 0.1
"""Levenberg's ridge on the unit diagonal of the Hessian. The smallest only keeps dependent
constraints solvable; a rejected step starts at the second and multiplies by the third, an
accepted one multiplies by the last and falls back to the smallest below the second."""

_POLISH_RTOL = 1e-10
"""Fraction of the squared distance that constraint values times multipliers may cost: a hundredth
of the default relative tolerance."""

_MAX_ADDED = 4
"""Limit on the violated constraints, the worst first, that enter a step besides those that carry a
multiplier. Of the hundreds that a thousand classes violate at the start few stay active, and the
worst ones of a step are often implied by one another: with 24 in place of 4, random heads of 1,000
classes need twice as many steps, each three times as long."""

_tables: weakref.WeakKeyDictionary[LinearHead, tuple[Tensor | None, bool]] = (
    weakref.WeakKeyDictionary()
)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DualSolution:
    """Proposed multipliers (P,K), points (P,d), steps and whether the inner stop was met (P,).

    And which points (P,) were moved, so that the multipliers do not give them.
    """

    multipliers: Tensor
    points: Tensor
    steps: Tensor
    solved: Tensor
    moved: Tensor


@final
@dataclass(slots=True, kw_only=True, eq=False)
class _NewtonState:
    """State of the problems that are not finished; every field is batch first."""

    index: Tensor
    norms: Tensor
    size: Tensor
    lam: Tensor
    values: Tensor
    points: Tensor
    objective: Tensor
    residual: Tensor
    ridge: Tensor
    stalled: Tensor

    def take(self, mask: Tensor) -> _NewtonState:
        """Return the rows where `mask` is true."""
        return _NewtonState(**{name: getattr(self, name)[mask] for name in self.__slots__})


def solve_dual(
    problems: DualProblems,
    start: tuple[Float64[Tensor, "P K"], Bool[Tensor, " P"]],
    rtol: float,
    max_steps: int,
    *,
    dense: bool = False,
) -> DualSolution:
    """Solve P problems; rows that fail keep their last admissible multipliers.

    Parameters
    ----------
    problems : DualProblems
        Problems whose rows are finite and inside the domain.
    start : Tensor (P, K), Tensor (P,)
        Admissible multipliers, and for which problems they prove that there is no point.
    rtol : float
        Relative tolerance of distance and bound.
    max_steps : int
        Limit on the evaluations of the dual per row.
    dense : bool
        Whether to form every constraint row: slower, exact for classes with nearly equal weights.
    """
    norms = problems.row_norms()
    out = _initial_solution(problems, start, norms)
    open_rows = ~out.solved
    work = problems.take(open_rows)
    state = _initial_state(problems, open_rows, norms, out.multipliers)
    operator: ConstraintOperator = DenseConstraints(work) if dense else FactoredConstraints(work)
    trial, adjoint = state.lam, None
    for count in range(1, max_steps + 1):
        if len(state.index) == 0:
            break
        evaluated = _evaluate(work, operator, trial, adjoint)
        _accept_or_reject(state, work, trial, evaluated)
        distance = torch.linalg.vector_norm(state.points - work.z, dim=1)
        solved = _is_solved(state, distance, rtol)
        ends = solved | (state.stalled >= _MAX_STALLED) | (count == max_steps)
        if bool(ends.any()):
            _store(out, state, work, operator, distance, ends)
            out.steps[state.index[ends]] = count
            out.solved[state.index[ends]] = solved[ends]
            state, work, operator = state.take(~ends), work.take(~ends), operator.take(~ends)
        if len(state.index):
            trial, adjoint = _next_trial(state, work)
    return out


def _initial_solution(
    problems: DualProblems, start: tuple[Tensor, Tensor], norms: Tensor
) -> DualSolution:
    """Return the solution before the first step: solved where `start` proves there is no point."""
    multipliers, solved = start[0].clone(), start[1].clone()
    certificates = problems.trivial_certificates(norms)
    infeasible = certificates.any(dim=1)
    if bool(infeasible.any()):
        multipliers = torch.where(infeasible[:, None], certificates, multipliers)
        solved = solved | infeasible
    return DualSolution(
        multipliers=multipliers,
        points=torch.full_like(problems.z, torch.nan),
        steps=torch.ones_like(solved, dtype=torch.int64),
        solved=solved,
        moved=torch.zeros_like(solved),
    )


def _initial_state(
    problems: DualProblems, mask: Tensor, norms: Tensor, lam: Tensor
) -> _NewtonState:
    """Return the state of the rows in `mask` before the first evaluation."""
    index = mask.nonzero()[:, 0]
    inf = torch.full((len(index),), torch.inf, dtype=lam.dtype, device=lam.device)
    row_norms = norms[index]
    offsets = problems.head._bias.abs().amax() / row_norms.amax(dim=1).clamp_min(1e-300)
    return _NewtonState(
        index=index,
        norms=row_norms,
        size=torch.linalg.vector_norm(problems.z[index], dim=1) + offsets,
        lam=lam[index],
        values=torch.zeros_like(row_norms),
        points=problems.z[index],
        objective=inf,
        residual=inf.clone(),
        ridge=torch.full_like(inf, _RIDGE_MIN),
        stalled=torch.zeros_like(index),
    )


def _evaluate(
    problems: DualProblems, operator: ConstraintOperator, lam: Tensor, adjoint: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return z' (P,d), constraint values (P,K) and f (P,) at multipliers `lam` (P,K).

    `adjoint` (P,d) is ``Mᵀ lam``, if it is known.
    """
    moved = operator.adjoint(lam) if adjoint is None else adjoint
    points = problems.head.domain.clip(problems.z + moved)
    values = operator.values(points)
    moved = points - problems.z
    objective = torch.linalg.vecdot(lam, values) - 0.5 * torch.linalg.vecdot(moved, moved)
    return points, values, objective


def _residual(problems: DualProblems, lam: Tensor, values: Tensor, norms: Tensor) -> Tensor:
    """Return the natural residual of the optimality conditions, (P,), feature units."""
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    return problems.natural_residual(lam * norms, values * inverse).abs().amax(dim=1)


def _accept_or_reject(
    state: _NewtonState,
    work: DualProblems,
    trial: Tensor,
    evaluated: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Accept the trial where f decreases enough, and set the ridge of the next step."""
    points, values, objective = evaluated
    change = torch.linalg.vecdot(state.values, trial - state.lam)
    noise = 64 * EPS * torch.linalg.vecdot(trial.abs(), state.norms) * state.size
    good = objective <= state.objective + _ARMIJO * change.clamp_max(0.0) + noise
    gain = state.objective - objective > noise
    take = good[:, None]
    state.lam = torch.where(take, trial, state.lam)
    state.values = torch.where(take, values, state.values)
    state.points = torch.where(take, points, state.points)
    state.objective = torch.where(good, objective, state.objective)
    residual = _residual(work, trial, values, state.norms)
    gain |= residual < 0.5 * state.residual
    state.residual = torch.where(good, residual, state.residual)
    state.stalled = torch.where(gain & good, 0, state.stalled + 1)
    softer = state.ridge * _RIDGE_DOWN
    softer = torch.where(softer < _RIDGE_FIRST, _RIDGE_MIN, softer)
    harder = (state.ridge * _RIDGE_UP).clamp_min(_RIDGE_FIRST)
    state.ridge = torch.where(good, softer, harder)


def _is_solved(state: _NewtonState, distance: Tensor, rtol: float) -> Tensor:
    """Return which rows meet the inner tolerance or are proved to be too far (P,)."""
    allowed = torch.maximum(ATOL_FRACTION * (state.size + distance), rtol * distance)
    far = -state.objective > 0.5 * (TOO_FAR * state.size) ** 2
    return (state.residual <= _INNER * allowed) | far


def _store(
    out: DualSolution,
    state: _NewtonState,
    work: DualProblems,
    operator: ConstraintOperator,
    distance: Tensor,
    ends: Tensor,
) -> None:
    """Write multipliers and points of the rows in `ends` to `out`, polished where needed."""
    where = state.index[ends]
    out.multipliers[where] = state.lam[ends]
    out.points[where] = state.points[ends]
    missed = torch.linalg.vecdot(state.lam.abs(), state.values.abs())
    off = ends & (missed > _POLISH_RTOL * distance * distance)
    if bool(off.any()):
        polished = _polish(state.take(off), work.take(off), operator.take(off))
        out.points[state.index[off]] = polished
        out.moved[state.index[off]] = True


def _polish(state: _NewtonState, work: DualProblems, operator: ConstraintOperator) -> Tensor:
    """Return the points (P,d), moved onto their active constraints.

    z' = clip(z + Mᵀλ) inherits the rounding of Mᵀλ. Where a flip point is far and its constraints
    nearly parallel, Mᵀλ is a difference of huge vectors: the constraints are then missed by more
    than is allowed, and the distance by that times λ.
    """
    points = state.points
    active = (state.lam != 0) & (state.norms > 0)
    delta, _ = _solve_active(work, points, active, state.values, state.norms, state.ridge)
    low, high = work.head.domain.limits(points)
    free = (points > low) & (points < high)
    return work.head.domain.clip(points + torch.where(free, operator.adjoint(delta), 0.0))


def _next_trial(state: _NewtonState, work: DualProblems) -> tuple[Tensor, Tensor | None]:
    """Return the next trial multipliers (P,K), and ``Mᵀ λ`` (P,d) where their rows were formed."""
    depth = torch.where(state.norms > 0, state.values / state.norms, torch.inf)
    active = state.lam > 0
    violated = (depth < 0) & ~active
    if violated.shape[1] > _MAX_ADDED:
        worst = depth.masked_fill(~violated, 0.0).topk(_MAX_ADDED, dim=1, largest=False)
        violated &= depth <= worst.values[:, -1:]
    active = work.working_set(active | violated, state.norms)
    delta, rows = _solve_active(work, state.points, active, state.values, state.norms, state.ridge)
    trial = work.project(state.lam + delta)
    return trial, None if rows is None else rows.adjoint(trial)


def _solve_active(
    problems: DualProblems,
    points: Tensor,
    active: Tensor,
    values: Tensor,
    norms: Tensor,
    ridge: Tensor,
) -> tuple[Tensor, _Rows | None]:
    """Return the direction -(M_A diag(free) M_Aᵀ + ridge)⁻¹ (M z' + c)_A per slot, (P,K).

    The rows are scaled to unit norm first, so the ridge is relative. Also returned are the rows of
    A, where they were formed at once.

    Parameters
    ----------
    problems : DualProblems
    points : Tensor (P, d)
        z' at the current multipliers.
    active : Tensor (P, K), bool
        The set A; it must not contain slots with a zero row.
    values, norms : Tensor (P, K)
        Constraint values and norms of the constraint rows.
    ridge : Tensor (P,)
        Number added to the diagonal.
    """
    width = int(active.sum(dim=1).amax())
    slots = active.to(torch.uint8).topk(width, dim=1).indices
    valid = active.gather(1, slots)
    scale = torch.where(valid, norms.gather(1, slots), 1.0)
    products, signs, rows = _inner_products(problems, points, slots, valid)
    factor = signs / scale
    system = products.mul_(factor[:, :, None] * factor[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_((~valid).to(scale.dtype) + ridge[:, None])
    right = torch.where(valid, values.gather(1, slots) / scale, 0.0)
    if width == 1:
        solution = -right / system[:, 0]
    else:
        factor, info = torch.linalg.cholesky_ex(system)
        solved = torch.cholesky_solve(-right[..., None], factor)[..., 0]
        # not positive definite after rounding: a gradient step, and the next ridge is larger
        solution = torch.where((info == 0)[:, None], solved, -right)
    delta = torch.where(valid, solution / scale, 0.0)
    return torch.zeros_like(values).scatter_(1, slots, delta), rows


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The constraint rows of P sets of S slots.

    Attributes
    ----------
    slots : Tensor (P, S)
    signs : Tensor (P, S)
        1, -1, or 0 for a slot that does not count.
    differences : Tensor (P, S, d)
        Rows times their signs.
    """

    slots: Tensor
    signs: Tensor
    differences: Tensor

    def adjoint(self, lam: Tensor) -> Tensor:
        """Return ``Mᵀ lam`` (P,d); `lam` (P,K) is 0 in all other slots."""
        weights = self.signs * lam.gather(1, self.slots)
        return (weights[:, None] @ self.differences)[:, 0]


def _inner_products(
    problems: DualProblems, points: Tensor, slots: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, _Rows | None]:
    """Return the inner products (P,S,S) over the free coordinates of the rows at `slots`.

    Without the signs (P,S) of the rows, which follow, 0 where invalid; and the rows, where they
    were formed at once.
    """
    head, (anchor, other, signs) = problems.head, problems.row_classes(slots, valid)
    free = None
    if head.domain.kind != "unbounded":
        low, high = head.domain.limits(points)
        free = ((points > low) & (points < high)).to(points.dtype)
    (table, apart), rows = _table(head), None
    if table is None:
        size = max(1, _GATHER_BYTES // (8 * slots.shape[1] * head.num_features))
        out = []
        for part in chunks(len(slots), size):
            differences = head._weight[other[part]].sub_(head._weight[anchor[part]][:, None])
            scaled = differences if free is None else differences * free[part, None, :]
            out.append(scaled @ differences.mT)
        products = torch.cat(out)
        # where rows nearly agree, their exact sums would hide how little the logits can tell
        if len(out) == 1 and apart:
            rows = _Rows(slots=slots, signs=signs, differences=differences)
    else:
        k = head.num_classes
        # every coordinate is free without a domain: one Hessian for all rows
        everywhere = table.sum(dim=0).expand(len(points), k * k)
        grams = everywhere if free is None else free @ table
        base = anchor[:, None].expand_as(other)
        shape = (*other.shape, other.shape[1])
        products = torch.zeros(shape, dtype=points.dtype, device=points.device)
        for left, sign_left in ((other, 1.0), (base, -1.0)):
            for right, sign in ((other, sign_left), (base, -sign_left)):
                index = left[:, :, None] * k + right[:, None, :]
                products.add_(grams.gather(1, index.flatten(1)).view_as(products), alpha=sign)
    return products, signs, rows


def _table(head: LinearHead) -> tuple[Tensor | None, bool]:
    """Return (d, K K) products of centred weight rows, or None where rows must be gathered.

    And whether no two rows nearly agree.
    """
    if head not in _tables:
        centred = head._weight - head._weight.mean(dim=0)
        norms = pair_norms(head)
        between = norms[norms > 0]
        apart = len(between) > 0
        apart = apart and float(between.min()) >= _TABLE_SPREAD * float(between.max())
        table = None
        if apart and head.num_classes <= _TABLE_CLASSES:
            table = torch.einsum("im,km->mik", centred, centred).flatten(1)
        _tables[head] = table, apart
    return _tables[head]
