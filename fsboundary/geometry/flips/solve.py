"""Multipliers that prove that given classes cannot tie at the top, from one linear program.

The order of work on a batch of problems: Newton, a proof that there is nothing, Newton again.

Tie problems, solved and graded chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.certify import grade_solutions
from fsboundary.geometry.flips.constraints import ExplicitRows
from fsboundary.geometry.flips.dual_problems import DualProblems
from fsboundary.geometry.flips.newton import DualSolution, solve_dual
from fsboundary.geometry.flips.tie_problems import TieProblems, tie_start
from fsboundary.geometry.linear_programs import minimise
from fsboundary.geometry.norms import pair_norms


def farkas_multipliers(head: LinearHead, anchor: int, ties: tuple[int, ...]) -> Tensor | None:
    """Return multipliers (K,) with ``λᵀ(M x + c) < 0`` on the domain, or None.

    Slot k belongs to ``(w_r - w_k).x + b_r - b_k`` with r the `anchor`: free for `ties`, at least
    0 elsewhere (see :mod:`fsboundary.geometry.flips.tie_problems`). The multipliers are the marginals of:
    minimise s >= 0 such that every constraint, divided by its norm, fails by at most s at some x
    of the domain. s = 0 means that there are such points, and None is returned.
    Whether the multipliers do prove what they should is for
    :mod:`fsboundary.geometry.flips.certify` to decide.

    Parameters
    ----------
    head : LinearHead
    anchor : int
    ties : tuple of int
        Other classes; none asks for the region of the anchor.
    """
    norms = pair_norms(head)[anchor].cpu().numpy()
    weight, bias = head.weight.cpu().numpy(), head.bias.cpu().numpy()
    lam = np.zeros(head.num_classes)
    tied = np.zeros(head.num_classes, dtype=np.bool_)
    tied[list(ties)] = True
    # equal weight rows: the biases alone decide
    with np.errstate(over="ignore"):  # an infinite lead has the right sign
        lead = np.where(norms == 0, bias[anchor] - bias, 0.0)
    ruled = (lead < 0) | (tied & (lead > 0))
    if ruled.any():
        k = int(ruled.nonzero()[0][0])
        lam[k] = -np.sign(lead[k])
        return torch.from_numpy(lam).to(head.weight)
    others, fixed = np.flatnonzero((norms > 0) & ~tied), np.flatnonzero((norms > 0) & tied)
    with np.errstate(over="ignore", invalid="ignore"):  # looked for just below
        slack = (weight[anchor] - weight[others]) / norms[others, None]
        slack_offset = (bias[anchor] - bias[others]) / norms[others]
        tie = (weight[fixed] - weight[anchor]) / norms[fixed, None]
        offset = (bias[fixed] - bias[anchor]) / norms[fixed]
    rows, right = [-slack, tie, -tie], [slack_offset, -offset, offset]
    matrix = np.vstack(rows)
    bounds = np.concatenate(right)
    matrix = np.hstack([matrix, np.full((len(matrix), 1), -1.0)])
    cost = np.zeros(matrix.shape[1])
    cost[-1] = 1.0
    low, high = (t.cpu().numpy() for t in head.domain.limits(head.weight))
    low, high = np.append(low, 0.0), np.append(high, np.inf)
    found = minimise(cost, low, high, rows=matrix, right=bounds, method="highs")
    if found is None or found.value <= 0:
        return None
    with np.errstate(over="ignore"):  # what is not finite counts as 0 when it is graded
        lam[others] = found.on_rows[: len(others)] / norms[others]
        up, down = found.on_rows[len(others) :].reshape(2, -1)
        lam[fixed] = (up - down) / norms[fixed]
    return torch.from_numpy(lam).to(head.weight)


_FIRST_STEPS = 30
"""Solvable rows of trained and random heads need fewer than twenty steps; what is still open
then is first tried for a proof that there is nothing to find."""


@final
class Proofs:
    """Multipliers that prove that classes cannot tie at the top, each sought once.

    Parameters
    ----------
    head : LinearHead
    budget : int
        Linear programs at most.
    """

    def __init__(self, head: LinearHead, budget: int) -> None:
        self.head, self.budget = head, budget
        self.known: dict[tuple[int, tuple[int, ...]], Tensor | None] = {}

    def get(self, problems: DualProblems, row: int) -> Tensor | None:
        """Return the proof (K,) for problem `row`, or None: there is none, or no budget left."""
        anchor, ties = key = problems.question(row)
        if key not in self.known and len(self.known) < self.budget:
            self.known[key] = farkas_multipliers(self.head, anchor, ties)
        proof = self.known.get(key)
        return None if proof is None else problems.laid_out(row, proof)


def search(
    problems: DualProblems,
    start: tuple[Tensor, Tensor],
    proofs: Proofs,
    tolerance: float,
    max_steps: int,
) -> DualSolution:
    """Return points, multipliers and steps of one chunk of problems.

    Parameters
    ----------
    problems : DualProblems
    start : Tensor (P, K), Tensor (P,)
        As for :func:`fsboundary.geometry.flips.newton.solve_dual`.
    proofs : Proofs
        Kept between chunks.
    tolerance : float
    max_steps : int
    """
    found = solve_dual(problems, start, tolerance, min(max_steps, _FIRST_STEPS))
    if max_steps <= _FIRST_STEPS or bool(found.solved.all()):
        return found
    hard = []
    for row in (~found.solved).nonzero()[:, 0].tolist():
        proof = proofs.get(problems, row)
        if proof is None:
            hard.append(row)
        else:
            found.multipliers[row] = proof
    if not hard:
        return found
    left = torch.tensor(hard, dtype=torch.int64, device=start[0].device)
    # explicit rows keep the digits of classes with nearly equal weights
    for index in left.split(ExplicitRows.batch_size(problems)):
        begin = start[0][index], start[1][index]
        again = solve_dual(problems.take(index), begin, tolerance, max_steps, explicit=True)
        found.multipliers[index] = again.multipliers
        found.points[index], found.steps[index] = again.points, again.steps
    return found


_PROGRAMS = 2000
"""Linear programs a call may spend on proofs that classes cannot tie, each milliseconds for ten
classes."""

Make = Callable[[slice], tuple[TieProblems, Tensor]]
"""The problems of a slice and the source (P,) of each row."""


def answer_ties(
    head: LinearHead, total: int, make: Make, *, ties: int, rtol: float, max_steps: int
) -> dict[str, Tensor]:
    """Return what is certified of `total` tie problems, by name, as in ``results.TiePoints``.

    Parameters
    ----------
    head : LinearHead
    total : int
    make : callable
        Makes the problems when they are needed, so that no table of all of them exists.
    ties : int
        Classes that tie, at most: each step solves a system of that size for every problem.
    rtol, max_steps
        As for :func:`fsboundary.geometry.flips.certify.grade_solutions`.
    """
    proofs = Proofs(head, _PROGRAMS)
    size = chunk_rows(max(head.num_features, head.num_classes, ties * ties))
    # an empty batch has one empty chunk, which gives every field its shape
    pieces = list(chunks(total, size)) or [slice(0, 0)]
    parts = [_answer(*make(part), proofs, rtol, max_steps) for part in pieces]
    width = max((p["active"].shape[1] for p in parts), default=1)
    for p in parts:
        lack = width - p["active"].shape[1]
        p["active"] = torch.nn.functional.pad(p["active"], (0, lack), value=-1)
        p["multipliers"] = torch.nn.functional.pad(p["multipliers"], (0, lack))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _answer(
    problems: TieProblems, source: Tensor, proofs: Proofs, rtol: float, max_steps: int
) -> dict[str, Tensor]:
    """Return the graded answers of one chunk."""
    found = search(problems, tie_start(problems, source), proofs, rtol, max_steps)
    # an overflow: 0 is admissible and proves nothing
    lam = found.multipliers.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    grade = grade_solutions(
        problems, found.points, lam, found.steps, rtol=rtol, max_steps=max_steps
    )
    return {
        "points": grade.points,
        "distance": grade.distance,
        "lower_bound": grade.lower_bound,
        "gap": grade.gap,
        "violation": grade.violation,
        "anchor": problems.anchor,
        "active": grade.active,
        "multipliers": grade.multipliers,
        "status": grade.status,
        "steps": found.steps,
    }
