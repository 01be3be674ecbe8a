"""What the dual Newton method, the bounds and the grading must know of a batch of problems.

Every problem projects a row onto a part of the domain that ties and slacks of logits cut out. A
constraint compares two classes: its row is w - w', its offset b - b'. The constraints of a problem
lie in K slots; which classes a slot compares, and which multipliers are free, is the layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.pairs import pair_norms


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
