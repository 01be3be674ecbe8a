"""Solution of batches of flip and tie problems, with Farkas certificates of infeasibility.

A batch goes through Newton's method, then a linear program that may prove that classes cannot tie
as the highest, then Newton's method again for the rest. Tie problems are solved and graded chunk
by chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.rows import cat_ragged
from fsboundary.geometry.batching import map_chunks
from fsboundary.geometry.flips.certify import grade_solutions
from fsboundary.geometry.flips.constraints import DenseConstraints
from fsboundary.geometry.flips.dual_problems import DualProblems, compress
from fsboundary.geometry.flips.newton import DualSolution, solve_dual
from fsboundary.geometry.flips.recomputed import combined_points, kept_points, number_kept
from fsboundary.geometry.flips.tie_problems import TieProblems, tie_start
from fsboundary.geometry.linear_programs import solve_lp
from fsboundary.geometry.norms import pair_norms


def farkas_multipliers(
    head: LinearHead, anchor: int, ties: tuple[int, ...]
) -> Float64[Tensor, " K"] | None:
    """Return multipliers (K,) with ``λᵀ(M x + c) < 0`` on the domain, or None.

    Slot k belongs to ``(w_r - w_k).x + b_r - b_k`` with r the `anchor`: free for `ties`, at least
    0 elsewhere (see :mod:`fsboundary.geometry.flips.tie_problems`). The multipliers are the
    marginals of: minimise s >= 0 such that every constraint, divided by its norm, fails by at most
    s at some x of the domain. s = 0 means that there are such points, and None is returned.
    :mod:`fsboundary.geometry.flips.certify` checks whether the multipliers are a proof.

    Parameters
    ----------
    head : LinearHead
    anchor : int
    ties : tuple of int
        Other classes; the region of the anchor if empty.
    """
    norms = pair_norms(head)[anchor].cpu().numpy()
    weight, bias = head._weight.cpu().numpy(), head._bias.cpu().numpy()
    lam = np.zeros(head.num_classes)
    tied = np.zeros(head.num_classes, dtype=np.bool_)
    tied[list(ties)] = True
    # equal weight rows: only the biases decide
    with np.errstate(over="ignore"):  # an infinite lead has the right sign
        lead = np.where(norms == 0, bias[anchor] - bias, 0.0)
    infeasible = (lead < 0) | (tied & (lead > 0))
    if infeasible.any():
        k = int(infeasible.nonzero()[0][0])
        lam[k] = -np.sign(lead[k])
        return torch.from_numpy(lam).to(head._weight)
    others, fixed = np.flatnonzero((norms > 0) & ~tied), np.flatnonzero((norms > 0) & tied)
    with np.errstate(over="ignore", invalid="ignore"):  # checked by solve_lp
        slack = (weight[anchor] - weight[others]) / norms[others, None]
        slack_offset = (bias[anchor] - bias[others]) / norms[others]
        tie = (weight[fixed] - weight[anchor]) / norms[fixed, None]
        offset = (bias[fixed] - bias[anchor]) / norms[fixed]
    matrix = np.vstack([-slack, tie, -tie])
    bounds = np.concatenate([slack_offset, -offset, offset])
    matrix = np.hstack([matrix, np.full((len(matrix), 1), -1.0)])
    cost = np.zeros(matrix.shape[1])
    cost[-1] = 1.0
    low, high = (t.cpu().numpy() for t in head.domain.limits(head._weight))
    low, high = np.append(low, 0.0), np.append(high, np.inf)
    solution = solve_lp(cost, low, high, ineq_matrix=matrix, ineq_rhs=bounds, method="highs")
    if solution is None or solution.value <= 0:
        return None
    with np.errstate(over="ignore"):  # grading sets numbers that are not finite to 0
        lam[others] = solution.ineq_duals[: len(others)] / norms[others]
        up, down = solution.ineq_duals[len(others) :].reshape(2, -1)
        lam[fixed] = (up - down) / norms[fixed]
    return torch.from_numpy(lam).to(head._weight)


_FIRST_STEPS = 30
"""Steps before a proof of infeasibility is tried for rows that are still open: solvable rows of
trained and random heads need fewer than twenty."""


@final
class FarkasCache:
    """A cache of Farkas certificates that classes cannot tie as the highest.

    Parameters
    ----------
    head : LinearHead
    budget : int
        Limit on the number of linear programs.
    """

    def __init__(self, head: LinearHead, budget: int) -> None:
        self.head, self.budget = head, budget
        self._cache: dict[tuple[int, tuple[int, ...]], Tensor | None] = {}
        self._lock = threading.Lock()  # chunks run in threads

    def get(self, problems: DualProblems, row: int) -> Tensor | None:
        """Return the proof (K,) for problem `row`; None if there is none or no budget is left."""
        anchor, ties = key = problems.infeasibility_key(row)
        with self._lock:
            if key not in self._cache and len(self._cache) < self.budget:
                self._cache[key] = farkas_multipliers(self.head, anchor, ties)
            proof = self._cache.get(key)
        return None if proof is None else problems.to_slots(row, proof)


def solve_with_certificates(
    problems: DualProblems,
    start: tuple[Float64[Tensor, "P K"], Bool[Tensor, " P"]],
    proofs: FarkasCache,
    tolerance: float,
    max_steps: int,
) -> DualSolution:
    """Return points, multipliers and steps of one chunk of problems.

    Parameters
    ----------
    problems : DualProblems
    start : Tensor (P, K), Tensor (P,)
        As for :func:`fsboundary.geometry.flips.newton.solve_dual`.
    proofs : FarkasCache
        Cache that is shared between chunks.
    tolerance : float
    max_steps : int
    """
    solution = solve_dual(problems, start, tolerance, min(max_steps, _FIRST_STEPS))
    if max_steps <= _FIRST_STEPS or bool(solution.solved.all()):
        return solution
    unproved = []
    for row in (~solution.solved).nonzero()[:, 0].tolist():
        proof = proofs.get(problems, row)
        if proof is None:
            unproved.append(row)
        else:
            solution.multipliers[row] = proof
    if not unproved:
        return solution
    rest = torch.tensor(unproved, dtype=torch.int64, device=start[0].device)
    # dense rows stay accurate for classes with nearly equal weights
    for index in rest.split(DenseConstraints.batch_size(problems)):
        begin = start[0][index], start[1][index]
        again = solve_dual(problems.take(index), begin, tolerance, max_steps, dense=True)
        solution.multipliers[index] = again.multipliers
        solution.points[index], solution.steps[index] = again.points, again.steps
        solution.moved[index] = again.moved
    return solution


_MAX_PROGRAMS = 2000
"""Limit on the linear programs per call for proofs that classes cannot tie, each milliseconds for
ten classes."""

ProblemFactory = Callable[[slice], tuple[TieProblems, Tensor]]
"""The problems of a slice and the source (P,) of each row."""


def solve_ties(
    head: LinearHead,
    total: int,
    make_problems: ProblemFactory,
    *,
    ties: int,
    rtol: float,
    max_steps: int,
    recompute: bool = False,
) -> dict[str, Tensor]:
    """Solve `total` tie problems; return the certified fields of ``results.TiePoints`` by name.

    With `recompute`, ``points`` are those that :mod:`fsboundary.geometry.flips.recomputed` gives
    and have no field; ``kept_at`` and ``kept`` are the others.

    Parameters
    ----------
    head : LinearHead
    total : int
    make_problems : callable
        Factory that makes problems when they are needed, so that no table of all of them exists.
    ties : int
        Largest number of classes that tie: each step solves a system of that size per problem.
    rtol, max_steps
        Tolerance and limit of :func:`fsboundary.geometry.flips.certify.grade_solutions`.
    """
    proofs = FarkasCache(head, _MAX_PROGRAMS)

    def solve(part: slice) -> dict[str, Tensor]:
        return _solve_chunk(*make_problems(part), proofs, rtol, max_steps, recompute)

    width = max(head.num_features, head.num_classes, ties * ties)
    # an empty batch has one empty chunk, which gives every field its shape
    parts = map_chunks(solve, total, width, head.device) or [solve(slice(0, 0))]
    if recompute:
        number_kept(parts)
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    padding = {"active": -1, "multipliers": 0}
    return {
        name: cat_ragged(column, padding[name]) if name in padding else torch.cat(column)
        for name, column in columns.items()
    }


def _solve_chunk(
    problems: TieProblems,
    source: Tensor,
    proofs: FarkasCache,
    rtol: float,
    max_steps: int,
    recompute: bool,
) -> dict[str, Tensor]:
    """Return the graded fields of one chunk."""
    solution = solve_with_certificates(
        problems, tie_start(problems, source), proofs, rtol, max_steps
    )
    # 0 in place of an overflow is admissible and proves nothing
    lam = solution.multipliers.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    points = solution.points
    if recompute:
        active, multipliers = compress(lam)
        given = combined_points(
            problems.head, problems.z, problems.anchor, active.clamp_min(0), -multipliers
        )
        points = torch.where(solution.moved[:, None], points, given)
    grade = grade_solutions(problems, points, lam, solution.steps, rtol=rtol, max_steps=max_steps)
    shown = {"points": grade.points}
    if recompute:
        shown = kept_points(grade.points, solution.moved)
    return shown | {
        "distance": grade.distance,
        "lower_bound": grade.lower_bound,
        "gap": grade.gap,
        "violation": grade.violation,
        "anchor": problems.anchor,
        "active": grade.active,
        "multipliers": grade.multipliers,
        "status": grade.status,
        "steps": solution.steps,
    }
