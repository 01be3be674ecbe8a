"""The Newton system of the dual, on the constraints that are active.

Batched semismooth Newton on the dual of flip and tie problems.

Minimise f(λ) = λᵀ(M z' + c) - ½|z' - z|² with z' = clip(z + Mᵀλ), slack multipliers >= 0: convex,
piecewise quadratic, gradient M z' + c, generalised Hessian M diag(free) Mᵀ. Each step solves for
the constraints that are active or violated and projects (Bertsekas, "Projected Newton methods for
optimization problems with simple constraints", SIAM J. Control Optim. 20 (1982)), with a
safeguarded line search along the projected arc. Solved problems leave the batch.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import ATOL_SHARE, EPS, TOO_FAR
from fsboundary.geometry.batching import chunks
from fsboundary.geometry.flips.constraints import ClassRows, ConstraintRows, ExplicitRows
from fsboundary.geometry.flips.dual_problems import DualProblems
from fsboundary.geometry.norms import pair_norms

_TABLE_CLASSES = 24
"""Up to this many classes, all products of two weight rows are tabled and one matrix product
makes every Hessian; above, rows are gathered for the active constraints alone."""

_TABLE_SPREAD = 1e-4
"""The table works with products of rows, not of their differences, so it loses digits where two
rows nearly agree. Below this relative distance of rows they are gathered instead."""

_GATHER_BYTES = 32 << 20
"""Cap on one array of gathered rows (P,S,d); longer batches are built piece by piece."""

_tables: weakref.WeakKeyDictionary[LinearHead, Tensor | None] = weakref.WeakKeyDictionary()


def solve_active(
    problems: DualProblems,
    points: Tensor,
    active: Tensor,
    values: Tensor,
    norms: Tensor,
    ridge: Tensor,
) -> Tensor:
    """Return the direction -(M_A diag(free) M_Aᵀ + ridge)⁻¹ (M z' + c)_A per slot, (P,K).

    The rows are scaled to unit norm first, so the ridge is relative.

    Parameters
    ----------
    points : Tensor (P, d)
        z' at the current multipliers.
    active : Tensor (P, K), bool
        The set A; slots with a zero row must not be in it.
    values, norms : Tensor (P, K)
        Constraint values and norms of the constraint rows.
    ridge : Tensor (P,)
        Added to the diagonal.
    """
    width = int(active.sum(dim=1).amax())
    slots = active.to(torch.uint8).topk(width, dim=1).indices
    valid = active.gather(1, slots)
    first, second = problems.row_classes(slots, valid)
    scale = torch.where(valid, norms.gather(1, slots), 1.0)
    system = _products(problems.head, points, first, second)
    system = system / (scale[:, :, None] * scale[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_((~valid).to(scale.dtype) + ridge[:, None])
    right = torch.where(valid, values.gather(1, slots) / scale, 0.0)
    if width == 1:
        answer = -right / system[:, 0]
    else:
        factor, info = torch.linalg.cholesky_ex(system)
        solved = torch.cholesky_solve(-right[..., None], factor)[..., 0]
        # not positive definite after rounding: a gradient step, and the next ridge is larger
        answer = torch.where((info == 0)[:, None], solved, -right)
    delta = torch.where(valid, answer / scale, 0.0)
    return torch.zeros_like(values).scatter_(1, slots, delta)


def _products(head: LinearHead, points: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return (P,S,S) inner products of the rows w_first - w_second over the free coordinates."""
    bounded = head.domain.kind != "unbounded"
    free = None
    if bounded:
        low, high = head.domain.limits(points)
        free = ((points > low) & (points < high)).to(points.dtype)
    table = _table(head)
    if table is None:
        return _gathered(head, free, first, second)
    k = head.num_classes
    # every coordinate is free without a domain: one Hessian for all rows
    everywhere = table.sum(dim=0).expand(len(points), k * k)
    grams = everywhere if free is None else free @ table
    f, s = first * k, second * k
    out = torch.zeros((*first.shape, first.shape[1]), dtype=points.dtype, device=points.device)
    for left, sign_left in ((f, 1.0), (s, -1.0)):
        for right, sign in ((first, sign_left), (second, -sign_left)):
            index = left[:, :, None] + right[:, None, :]
            out.add_(grams.gather(1, index.flatten(1)).view_as(out), alpha=sign)
    return out


def _gathered(head: LinearHead, free: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """Return the products from explicitly gathered rows, piece by piece."""
    count, slots = first.shape
    size = max(1, _GATHER_BYTES // (8 * slots * head.num_features))
    out = []
    for part in chunks(count, size):
        rows = head.weight[first[part]].sub_(head.weight[second[part]])
        scaled = rows if free is None else rows * free[part, None, :]
        out.append(scaled @ rows.mT)
    return torch.cat(out)


def _table(head: LinearHead) -> Tensor | None:
    """Return (d, K K) products of centred weight rows, or None where rows must be gathered."""
    if head not in _tables:
        centred = head.weight - head.weight.mean(dim=0)
        norms = pair_norms(head)
        between = norms[norms > 0]
        use = head.num_classes <= _TABLE_CLASSES and len(between) > 0
        if use and float(between.min()) >= _TABLE_SPREAD * float(between.max()):
            _tables[head] = torch.einsum("im,km->mik", centred, centred).flatten(1)
        else:
            _tables[head] = None
    return _tables[head]


_INNER = 1e-3
"""The inner stop is this share of what the certificate allows. Newton's last step gains more
digits than that, so the certificate does not fail for want of one."""

_ARMIJO = 1e-4
_STALLED = 12
"""Steps in a row that gain nothing beyond rounding before a row is given up."""

_RIDGE_MIN, _RIDGE_FIRST, _RIDGE_UP, _RIDGE_DOWN = 1e-13, 1e-8, 30.0, 0.1
"""Levenberg's ridge on the unit diagonal of the Hessian. The smallest only keeps dependent
constraints solvable; a rejected step starts at the second and multiplies by the third, an
accepted one multiplies by the last and falls back to the smallest below the second."""


_MISSED = 1e-10
"""Share of the squared distance that constraint values times multipliers may cost: a hundredth of
the default relative tolerance."""

_ADDED = 24
"""At most so many violated constraints, the worst first, enter a step besides those that carry a
multiplier: with a thousand classes hundreds are violated at the start and few stay active."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DualSolution:
    """Proposed multipliers (P,K), points (P,d), steps and whether the inner stop was met (P,)."""

    multipliers: Tensor
    points: Tensor
    steps: Tensor
    solved: Tensor


@final
@dataclass(slots=True, kw_only=True, eq=False)
class _Rows:
    """State of the rows still at work; every field is batch first."""

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

    def keep(self, mask: Tensor) -> _Rows:
        """Return the rows where `mask` is true."""
        return _Rows(**{name: getattr(self, name)[mask] for name in self.__slots__})


def evaluate(
    problems: DualProblems, rows: ConstraintRows, lam: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return z' (P,d), constraint values (P,K) and f (P,) at multipliers `lam` (P,K)."""
    points = problems.head.domain.clip(problems.z + rows.adjoint(lam))
    values = rows.values(points)
    moved = points - problems.z
    objective = torch.linalg.vecdot(lam, values) - 0.5 * torch.linalg.vecdot(moved, moved)
    return points, values, objective


def _residual(problems: DualProblems, lam: Tensor, values: Tensor, norms: Tensor) -> Tensor:
    """Return the natural residual of the optimality conditions, (P,), feature units."""
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    return problems.natural(lam * norms, values * inverse).abs().amax(dim=1)


def solve_dual(
    problems: DualProblems,
    start: tuple[Tensor, Tensor],
    rtol: float,
    max_steps: int,
    *,
    explicit: bool = False,
) -> DualSolution:
    """Solve P problems; rows that fail keep their last admissible multipliers.

    Parameters
    ----------
    problems : DualProblems
        Rows finite and inside the domain.
    start : Tensor (P, K), Tensor (P,)
        Admissible multipliers, and for which problems they prove that there is no point.
    rtol : float
        Relative tolerance of distance and bound.
    max_steps : int
        Evaluations of the dual a row may take.
    explicit : bool
        Form every constraint row: slower, exact for classes with nearly equal weights.
    """
    out_lam, stuck = start[0].clone(), start[1]
    norms = problems.row_norms()
    beaten = problems.beaten(norms)
    lost = beaten.any(dim=1)
    if bool(lost.any()):
        out_lam = torch.where(lost[:, None], beaten, out_lam)
        stuck = stuck | lost
    out_points = torch.full_like(problems.z, torch.nan)
    out_steps = torch.ones_like(stuck, dtype=torch.int64)
    out_solved = stuck.clone()
    work = problems.take(~stuck)
    state = _begin(problems, ~stuck, norms, out_lam)
    rows: ConstraintRows = ExplicitRows(work) if explicit else ClassRows(work)
    trial = state.lam
    for count in range(1, max_steps + 1):
        if len(state.index) == 0:
            break
        _judge(state, work, trial, evaluate(work, rows, trial))
        distance = torch.linalg.vector_norm(state.points - work.z, dim=1)
        allowed = torch.maximum(ATOL_SHARE * (state.size + distance), rtol * distance)
        far = -state.objective > 0.5 * (TOO_FAR * state.size) ** 2
        solved = (state.residual <= _INNER * allowed) | far
        ends = solved | (state.stalled >= _STALLED) | (count == max_steps)
        if bool(ends.any()):
            where = state.index[ends]
            out_lam[where] = state.lam[ends]
            out_points[where] = state.points[ends]
            missed = torch.linalg.vecdot(state.lam.abs(), state.values.abs())
            off = ends & (missed > _MISSED * distance * distance)
            if bool(off.any()):
                better = _polished(state.keep(off), work.take(off), rows.take(off))
                out_points[state.index[off]] = better
            out_steps[where] = count
            out_solved[where] = solved[ends]
            state, work, rows = state.keep(~ends), work.take(~ends), rows.take(~ends)
        if len(state.index):
            trial = _step(state, work)
    return DualSolution(multipliers=out_lam, points=out_points, steps=out_steps, solved=out_solved)


def _begin(problems: DualProblems, mask: Tensor, norms: Tensor, lam: Tensor) -> _Rows:
    """Return the state of the rows in `mask` before the first evaluation."""
    index = mask.nonzero()[:, 0]
    inf = torch.full((len(index),), torch.inf, dtype=lam.dtype, device=lam.device)
    rows = norms[index]
    offsets = problems.head.bias.abs().amax() / rows.amax(dim=1).clamp_min(1e-300)
    return _Rows(
        index=index,
        norms=rows,
        size=torch.linalg.vector_norm(problems.z[index], dim=1) + offsets,
        lam=lam[index],
        values=torch.zeros_like(rows),
        points=problems.z[index],
        objective=inf,
        residual=inf.clone(),
        ridge=torch.full_like(inf, _RIDGE_MIN),
        stalled=torch.zeros_like(index),
    )


def _judge(
    state: _Rows, work: DualProblems, trial: Tensor, found: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Accept the trial where f falls enough, and set the ridge of the next step."""
    points, values, objective = found
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


def _polished(state: _Rows, work: DualProblems, rows: ConstraintRows) -> Tensor:
    """Return the points (P,d), moved onto their active constraints.

    z' = clip(z + Mᵀλ) inherits the rounding of Mᵀλ. Where a flip point is far and its constraints
    nearly parallel, Mᵀλ is a difference of huge vectors: the constraints are then missed by more
    than their share, and the distance by that times λ.
    """
    points = state.points
    active = (state.lam != 0) & (state.norms > 0)
    delta = solve_active(work, points, active, state.values, state.norms, state.ridge)
    low, high = work.head.domain.limits(points)
    free = (points > low) & (points < high)
    return work.head.domain.clip(points + torch.where(free, rows.adjoint(delta), 0.0))


def _step(state: _Rows, work: DualProblems) -> Tensor:
    """Return the next trial multipliers (P,K)."""
    depth = torch.where(state.norms > 0, state.values / state.norms, torch.inf)
    active = state.lam > 0
    fresh = (depth < 0) & ~active
    if fresh.shape[1] > _ADDED:
        last = depth.masked_fill(~fresh, 0.0).topk(_ADDED, dim=1, largest=False).values[:, -1:]
        fresh &= depth <= last
    active = work.engage(active | fresh, state.norms)
    delta = solve_active(work, state.points, active, state.values, state.norms, state.ridge)
    return work.project(state.lam + delta)
