"""What the dual Newton method, the bounds and the grading must know of a batch of problems.

Every problem projects a row onto a part of the domain that ties and slacks of logits cut out. A
constraint compares two classes: its row is w - w', its offset b - b'. The constraints of a problem
lie in K slots; which classes a slot compares, and which multipliers are free, is the layout.

The flip problems of one head, and how their multipliers are laid out.

A multiplier table ``lam`` (P,K) holds, for the problem of row z with source i and target j:
slot j the free multiplier of the tie ``(w_i - w_j).z' + b_i - b_j = 0``, slot k the multiplier
``>= 0`` of the slack ``(w_j - w_k).z' + b_j - b_k >= 0``, slot i zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.norms import TINY, lengths, pair_norms


class DualProblems(ABC):
    """P projections with the layout of their constraints ``M x + c`` and multipliers λ (P,K).

    Attributes
    ----------
    head : LinearHead
    z : Tensor (P, d), float64, inside the domain
    """

    __slots__ = ()

    head: LinearHead
    z: Tensor

    def __len__(self) -> int:
        return len(self.z)

    @abstractmethod
    def take(self, index: Tensor | slice) -> Self:
        """Return the problems at `index`."""

    @abstractmethod
    def per_slot(self, pairs: Tensor) -> Tensor:
        """Lay out a symmetric class-pair table (K,K) by slot, (P,K)."""

    def row_norms(self) -> Tensor:
        """Return the norm of each slot's constraint row, (P,K)."""
        return self.per_slot(pair_norms(self.head))

    @abstractmethod
    def constraints(self, logits: Tensor) -> Tensor:
        """Return ``M x + c`` by slot (P,K) from the logits (P,K) of x."""

    @abstractmethod
    def coefficients(self, lam: Tensor) -> Tensor:
        """Return α (P,K) with ``Mᵀλ = α @ W``; every row sums to 0."""

    @abstractmethod
    def absolute_coefficients(self, lam: Tensor) -> Tensor:
        """Return (P,K) the sums of |λ| that each class's weights enter with."""

    @abstractmethod
    def form(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K), the slot without a constraint zero."""

    @abstractmethod
    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes (P,S) whose weights differ by the rows at `slots`; equal if invalid."""

    @abstractmethod
    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with negative multipliers of slacks set to 0."""

    @abstractmethod
    def natural(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return what is missing for optimality by slot, (P,K): 0 where ties and slacks are met.

        Both arguments are in feature units: multipliers times norms, values over norms.
        """

    @abstractmethod
    def engage(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) with the ties and without the slot that has no constraint."""

    @abstractmethod
    def beaten(self, norms: Tensor) -> Tensor:
        """Return multipliers (P,K) that prove a problem to have no point by equal weights alone.

        0 in problems of which the biases of classes with equal weights say nothing.
        """

    @abstractmethod
    def misses(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) break each constraint (P,K), logit units.

        Raised by rounding: `doubt` (P,K) bounds that of `values`; `end` is the points' length.
        """

    @abstractmethod
    def never(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""

    @abstractmethod
    def question(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the class that may not be beaten in problem `row` and those it must tie with."""

    @abstractmethod
    def laid_out(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,), as :func:`farkas_multipliers` lays it out, in own slots."""


def empty_slots(problems: DualProblems) -> Tensor:
    """Return multipliers (P,K), all 0."""
    shape = (len(problems.z), problems.head.num_classes)
    return torch.zeros(shape, dtype=torch.float64, device=problems.z.device)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipProblems(DualProblems):
    """P flip problems of one head.

    Attributes
    ----------
    head : LinearHead
    z : Tensor (P, d), float64, inside the domain
    source, target : Tensor (P,), different classes
    """

    head: LinearHead
    z: Tensor
    source: Tensor
    target: Tensor

    def take(self, index: Tensor | slice) -> FlipProblems:
        """Return the problems at `index`."""
        return FlipProblems(
            head=self.head,
            z=self.z[index],
            source=self.source[index],
            target=self.target[index],
        )

    def tie_rows(self) -> tuple[Tensor, Tensor]:
        """Return the tie's normal (P,d) and offset (P,): ``w_i - w_j``, ``b_i - b_j``."""
        w, b = self.head.weight, self.head.bias
        normal = w.index_select(0, self.source) - w.index_select(0, self.target)
        return normal, b[self.source] - b[self.target]

    def per_slot(self, pairs: Tensor) -> Tensor:
        """Lay out a symmetric class-pair table (K,K) by slot, (P,K): slot j holds pair (i,j).

        Slot i, which has no constraint, holds pair (j,i) as well.
        """
        tie = pairs[self.source, self.target][:, None]
        return pairs[self.target].scatter_(1, self.target[:, None], tie)

    def constraints(self, logits: Tensor) -> Tensor:
        """Return ``M x + c`` by slot (P,K) from the logits (P,K) of x."""
        i, j = self.source[:, None], self.target[:, None]
        at_target = logits.gather(1, j)
        tie = logits.gather(1, i) - at_target
        return (at_target - logits).scatter_(1, j, tie).scatter_(1, i, 0.0)

    def coefficients(self, lam: Tensor) -> Tensor:
        """Return α (P,K) with ``Mᵀλ = α @ W``; every row sums to 0."""
        i, j = self.source[:, None], self.target[:, None]
        tie = lam.gather(1, j)
        slacks = lam.sum(dim=1, keepdim=True) - tie
        return (-lam).scatter_(1, j, slacks - tie).scatter_(1, i, tie)

    def absolute_coefficients(self, lam: Tensor) -> Tensor:
        """Return (P,K) the sums of |λ| that each class's weights enter with."""
        i, j = self.source[:, None], self.target[:, None]
        size = lam.abs()
        tie = size.gather(1, j)
        return size.scatter(1, j, size.sum(dim=1, keepdim=True)).scatter_(1, i, tie)

    def form(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K), slot i zero."""
        w, b = self.head.weight, self.head.bias
        j = self.target
        matrix = w[j][:, None, :] - w
        offset = b[j][:, None] - b
        normal, tie = self.tie_rows()
        row = torch.arange(len(j), device=j.device)
        matrix[row, j], offset[row, j] = normal, tie
        matrix[row, self.source], offset[row, self.source] = 0.0, 0.0
        return matrix, offset

    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes (P,S) whose weights differ by the rows at `slots`; equal if invalid."""
        j = self.target[:, None]
        is_tie = slots == j
        first = torch.where(is_tie & valid, self.source[:, None], j)
        return first, torch.where(is_tie | ~valid, j, slots)

    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with the slack slots clipped at 0."""
        j = self.target[:, None]
        return lam.clamp_min(0.0).scatter_(1, j, lam.gather(1, j))

    def natural(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return what is missing for optimality by slot, (P,K), feature units."""
        j = self.target[:, None]
        return torch.minimum(lam, values).scatter_(1, j, values.gather(1, j))

    def engage(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) with the tie and without slot i."""
        active = active & (norms > 0)
        active.scatter_(1, self.target[:, None], True)
        return active.scatter_(1, self.source[:, None], False)

    def beaten(self, norms: Tensor) -> Tensor:
        """Return 1 in the slots (P,K) of classes with the target's weights and a larger bias."""
        bias = self.head.bias
        out = (norms == 0) & (bias[self.target][:, None] < bias)
        out.scatter_(1, self.source[:, None], False)
        return out.scatter_(1, self.target[:, None], False).to(norms)

    def misses(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) break each constraint (P,K), logit units."""
        i, j = self.source[:, None], self.target[:, None]
        normal, offset = self.tie_rows()
        broken = (doubt - values).clamp_min(0.0)
        # the tie is always evaluated by its explicit row; products of zeros do not underflow
        off = (torch.linalg.vecdot(normal, points) + offset).abs()
        lost = TINY * (end > 0).to(end)
        off = off + gamma * (lengths(normal) * end + offset.abs() + lost)
        return broken.scatter(1, j, off[:, None]).scatter_(1, i, 0.0)

    def never(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""
        b = self.head.bias
        slack = (b[:, None] < b)[self.target]
        tie = (b[self.source] != b[self.target])[:, None]
        return slack.scatter(1, self.target[:, None], tie).scatter_(1, self.source[:, None], False)

    def question(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the target, which may not be beaten, and the source, which it must tie with."""
        return int(self.target[row]), (int(self.source[row]),)

    def laid_out(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,) with the tie's multiplier at the target, for ``w_i - w_j``."""
        lam, i, j = proof.clone(), int(self.source[row]), int(self.target[row])
        lam[j], lam[i] = -lam[i], 0.0
        return lam


def compress(lam: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nonzero slots of `lam` (P,K), ascending, as (P,S) with -1, and their values."""
    used = lam != 0
    width = max(1, int(used.sum(dim=1).amax())) if len(lam) else 1
    slots = used.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :width]
    valid = used.gather(1, slots)
    return torch.where(valid, slots, -1), torch.where(valid, lam.gather(1, slots), 0.0)


def expand(problems: FlipProblems, active: Tensor, multipliers: Tensor) -> Tensor:
    """Return the table (P,K) of admissible multipliers that `active` and `multipliers` propose.

    What is not admissible becomes 0, which is admissible: indices out of range or equal to the
    source, numbers that are not finite, negative multipliers of slacks.
    """
    k = problems.head.num_classes
    j = problems.target[:, None]
    fine = (active >= 0) & (active < k) & (active != problems.source[:, None])
    fine &= torch.isfinite(multipliers) & ((multipliers > 0) | (active == j))
    lam = torch.zeros((len(active), k), dtype=torch.float64, device=active.device)
    slots = torch.where(fine, active, 0)
    return lam.scatter_add_(1, slots, torch.where(fine, multipliers.to(torch.float64), 0.0))
