"""Batches of projection problems in dual form, and the flip problems of one head.

Every problem projects a row onto the part of the domain that ties and slacks of logits cut out. A
constraint compares two classes: its row is w - w', its offset b - b'. The constraints of a problem
are stored in K slots; the layout says which classes a slot compares and which multipliers are free.

For flip problems, a multiplier table ``lam`` (P,K) holds, for row z with source i and target j:
slot j the free multiplier of the tie ``(w_i - w_j).z' + b_i - b_j = 0``, slot k the multiplier
``>= 0`` of the slack ``(w_j - w_k).z' + b_j - b_k >= 0``, slot i zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, final

import torch
from jaxtyping import Float, Float64, Int
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

    @abstractmethod
    def of_both_classes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the `values` (K,) of the two classes of each slot, both broadcastable to (P,K).

        A table of sums or differences of all pairs would be larger than all problems of a batch.
        """

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
        """Return the sums of |λ| with which each class's weights enter, (P,K)."""

    @abstractmethod
    def dense(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K); the slot without a constraint is zero."""

    @abstractmethod
    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return classes r (P,), k (P,S) and signs (P,S) of the rows ±(w_k - w_r) at `slots`.

        The sign is 0 where invalid.
        """

    @abstractmethod
    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with negative multipliers of slacks set to 0."""

    @abstractmethod
    def natural_residual(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return the natural residual of the optimality conditions by slot, (P,K).

        0 where ties and slacks are met. Both arguments are in feature units: multipliers times
        norms, values over norms.
        """

    @abstractmethod
    def working_set(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) plus the ties and minus the slot that has no constraint."""

    @abstractmethod
    def trivial_certificates(self, norms: Tensor) -> Tensor:
        """Return multipliers (P,K) that prove infeasibility from classes with equal weights only.

        0 in problems where the biases of classes with equal weights prove nothing.
        """

    @abstractmethod
    def violations(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) violate each constraint (P,K), logit units.

        Raised by rounding: `doubt` (P,K) bounds that of `values`; `end` (P,) is the norm of the
        points.
        """

    @abstractmethod
    def infeasible_constants(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""

    @abstractmethod
    def infeasibility_key(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the class that must be highest in problem `row` and those it must tie with."""

    @abstractmethod
    def to_slots(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,) of :func:`farkas_multipliers` in the layout of the problem."""


def empty_slots(problems: DualProblems) -> Float64[Tensor, "P K"]:
    """Return a multiplier table (P,K) of zeros."""
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
        w, b = self.head._weight, self.head._bias
        normal = w.index_select(0, self.source) - w.index_select(0, self.target)
        return normal, b[self.source] - b[self.target]

    def per_slot(self, pairs: Tensor) -> Tensor:
        """Lay out a symmetric class-pair table (K,K) by slot, (P,K): slot j holds pair (i,j).

        Slot i, which has no constraint, holds pair (j,i) as well.
        """
        tie = pairs[self.source, self.target][:, None]
        return pairs[self.target].scatter_(1, self.target[:, None], tie)

    def of_both_classes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return values of the first classes (P,1) or (P,K), and of the second ones (P,K)."""
        at_target = values[self.target][:, None]
        # slot j holds pair (i,j), the others (j,k)
        second = values.expand(len(self.z), -1).scatter(
            1, self.target[:, None], values[self.source][:, None]
        )
        return at_target, second

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
        """Return the sums of |λ| with which each class's weights enter, (P,K)."""
        i, j = self.source[:, None], self.target[:, None]
        size = lam.abs()
        tie = size.gather(1, j)
        return size.scatter(1, j, size.sum(dim=1, keepdim=True)).scatter_(1, i, tie)

    def dense(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K); slot i is zero."""
        w, b = self.head._weight, self.head._bias
        j = self.target
        matrix = w[j][:, None, :] - w
        offset = b[j][:, None] - b
        normal, tie = self.tie_rows()
        row = torch.arange(len(j), device=j.device)
        matrix[row, j], offset[row, j] = normal, tie
        matrix[row, self.source], offset[row, self.source] = 0.0, 0.0
        return matrix, offset

    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the target, the other classes and the signs of the rows at `slots`."""
        is_tie = slots == self.target[:, None]
        other = torch.where(is_tie, self.source[:, None], slots)
        signs = torch.where(is_tie, 1.0, -1.0).to(self.z) * valid
        return self.target, other, signs

    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with the slack slots clipped at 0."""
        j = self.target[:, None]
        return lam.clamp_min(0.0).scatter_(1, j, lam.gather(1, j))

    def natural_residual(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return the natural residual by slot, (P,K), feature units."""
        j = self.target[:, None]
        return torch.minimum(lam, values).scatter_(1, j, values.gather(1, j))

    def working_set(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) plus the tie and minus slot i."""
        active = active & (norms > 0)
        active.scatter_(1, self.target[:, None], True)
        return active.scatter_(1, self.source[:, None], False)

    def trivial_certificates(self, norms: Tensor) -> Tensor:
        """Return 1 in the slots (P,K) of classes with the target's weights and a larger bias."""
        bias = self.head._bias
        out = (norms == 0) & (bias[self.target][:, None] < bias)
        out.scatter_(1, self.source[:, None], False)
        return out.scatter_(1, self.target[:, None], False).to(norms)

    def violations(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) violate each constraint (P,K), logit units."""
        i, j = self.source[:, None], self.target[:, None]
        normal, offset = self.tie_rows()
        violation = (doubt - values).clamp_min(0.0)
        # the tie is always evaluated by its dense row; products of zeros do not underflow
        off = (torch.linalg.vecdot(normal, points) + offset).abs()
        lost = TINY * (end > 0).to(end)
        off = off + gamma * (lengths(normal) * end + offset.abs() + lost)
        return violation.scatter(1, j, off[:, None]).scatter_(1, i, 0.0)

    def infeasible_constants(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""
        b = self.head._bias
        slack = (b[:, None] < b)[self.target]
        tie = (b[self.source] != b[self.target])[:, None]
        return slack.scatter(1, self.target[:, None], tie).scatter_(1, self.source[:, None], False)

    def infeasibility_key(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the target, which must be highest, and the source, which it must tie with."""
        return int(self.target[row]), (int(self.source[row]),)

    def to_slots(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,) with the tie's multiplier at the target, for ``w_i - w_j``."""
        lam, i, j = proof.clone(), int(self.source[row]), int(self.target[row])
        lam[j], lam[i] = -lam[i], 0.0
        return lam


def compress(
    lam: Float64[Tensor, "P K"],
) -> tuple[Int[Tensor, "P S"], Float64[Tensor, "P S"]]:
    """Return the nonzero slots of `lam` (P,K), ascending, as (P,S) with -1, and their values."""
    used = lam != 0
    width = max(1, int(used.sum(dim=1).amax())) if len(lam) else 1
    slots = used.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :width]
    valid = used.gather(1, slots)
    return torch.where(valid, slots, -1), torch.where(valid, lam.gather(1, slots), 0.0)


def expand(
    problems: FlipProblems, active: Int[Tensor, "P S"], multipliers: Float[Tensor, "P S"]
) -> Float64[Tensor, "P K"]:
    """Return the table (P,K) of admissible multipliers proposed by `active` and `multipliers`.

    Inadmissible entries become 0, which is admissible: indices out of range or equal to the
    source, numbers that are not finite, negative multipliers of slacks.
    """
    k = problems.head.num_classes
    j = problems.target[:, None]
    valid = (active >= 0) & (active < k) & (active != problems.source[:, None])
    valid &= torch.isfinite(multipliers) & ((multipliers > 0) | (active == j))
    lam = torch.zeros((len(active), k), dtype=torch.float64, device=active.device)
    slots = torch.where(valid, active, 0)
    return lam.scatter_add_(1, slots, torch.where(valid, multipliers.to(torch.float64), 0.0))
