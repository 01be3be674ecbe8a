"""The order of work on a batch of problems: Newton, a proof that there is nothing, Newton again."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.flips.constraints import ExplicitRows
from fsboundary.geometry.flips.dual import DualProblems
from fsboundary.geometry.flips.farkas import farkas_multipliers
from fsboundary.geometry.flips.newton import DualSolution, solve_dual

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
