"""The default boundary finder: batched semismooth Newton on the dual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.farkas import farkas_multipliers
from fsboundary.geometry.newton import solve_dual
from fsboundary.geometry.problems import FlipProblems, compress
from fsboundary.geometry.rows import ExplicitRows
from fsboundary.head import LinearHead
from fsboundary.interfaces import BoundaryFinder, unsolved_flips
from fsboundary.results import FlipPoints


@final
@dataclass(frozen=True, slots=True)
class DualNewton(BoundaryFinder):
    """Exact flip points on any domain (design.md, section 1, "Flip point").

    Parameters
    ----------
    max_programs : int
        Rows that Newton's method leaves open mostly have no boundary point at all. One linear
        program a class pair proves it, for at most this many pairs a call; it takes
        milliseconds for ten classes and about a second for a thousand.
    """

    max_programs: int = 2000

    def find(
        self,
        head: LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose flip points of `features` (B,d) for `targets` (B,T)."""
        source = head.predict(features)
        count, width = targets.shape
        points = torch.full(
            (count * width, head.num_features),
            torch.nan,
            dtype=torch.float64,
            device=targets.device,
        )
        steps = torch.zeros(count * width, dtype=torch.int64, device=targets.device)
        solutions = []
        flat = targets.reshape(-1)
        proofs = _Proofs(head, self.max_programs)
        size = chunk_rows(max(head.num_features, head.num_classes))
        for part in chunks(len(flat), size):
            index = torch.arange(part.start, part.stop, device=targets.device) // width
            problems = FlipProblems(
                head=head, z=features[index], source=source[index], target=flat[part]
            )
            lam = _solve(problems, proofs, tolerance, max_steps, points[part], steps[part])
            solutions.append(compress(lam))
        fields = unsolved_flips(features, source, targets)
        fields["points"], fields["steps"] = (
            points.view(count, width, head.num_features),
            steps.view(count, width),
        )
        if solutions:
            slots = max(a.shape[1] for a, _ in solutions)
            pad = torch.nn.functional.pad
            fields["active"] = torch.cat(
                [pad(a, (0, slots - a.shape[1]), value=-1) for a, _ in solutions]
            ).view(count, width, slots)
            fields["multipliers"] = torch.cat(
                [pad(m, (0, slots - m.shape[1])) for _, m in solutions]
            ).view(count, width, slots)
        return FlipPoints(**fields)


_FIRST_STEPS = 30
"""Solvable rows of trained and random heads need fewer than twenty steps; what is still open
then is first tried for a proof that there is nothing to find."""


@final
class _Proofs:
    """Multipliers that prove class pairs to have no common boundary, each sought once."""

    def __init__(self, head: LinearHead, budget: int) -> None:
        self.head, self.budget = head, budget
        self.known: dict[tuple[int, int], Tensor | None] = {}

    def get(self, source: int, target: int) -> Tensor | None:
        """Return the proof (K,) for a pair, or None where there is none or no budget is left."""
        pair = (source, target)
        if pair not in self.known and len(self.known) < self.budget:
            self.known[pair] = farkas_multipliers(self.head, source, target)
        return self.known.get(pair)


def _solve(
    problems: FlipProblems,
    proofs: _Proofs,
    tolerance: float,
    max_steps: int,
    points: Tensor,
    steps: Tensor,
) -> Tensor:
    """Write points and steps of one chunk in place and return its multipliers (P,K)."""
    found = solve_dual(problems, tolerance, min(max_steps, _FIRST_STEPS))
    lam = found.multipliers
    points[:], steps[:] = found.points, found.steps
    if max_steps <= _FIRST_STEPS:
        return lam
    hard = []
    for row in (~found.solved).nonzero()[:, 0].tolist():
        proof = proofs.get(int(problems.source[row]), int(problems.target[row]))
        if proof is None:
            hard.append(row)
        else:
            lam[row] = proof
    size = ExplicitRows.batch_size(problems)
    # explicit rows keep the digits of classes with nearly equal weights
    for index in torch.tensor(hard, dtype=torch.int64, device=lam.device).split(size):
        again = solve_dual(problems.take(index), tolerance, max_steps, explicit=True)
        lam[index] = again.multipliers
        points[index], steps[index] = again.points, again.steps
    return lam
