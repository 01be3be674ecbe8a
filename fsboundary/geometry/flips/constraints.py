"""Constraint operators ``M x + c`` of flip and tie problems, factored and dense.

:class:`FactoredConstraints` works through the logits: two matrix products with W serve every
problem and no (P,K,d) array exists. :class:`DenseConstraints` forms every row w - w': its rounding
is relative to the rows themselves, so it is accurate where two classes have nearly equal weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from fsboundary.geometry.batching import MEMORY_BYTES
from fsboundary.geometry.flips.dual_problems import DualProblems
from fsboundary.geometry.norms import lengths, pair_norms

_MANY = 64
"""Number of classes from which a product with all weights is avoided where few are needed."""

_FEW = 4
"""Weights per problem that are gathered rather than multiplied as one matrix."""


class ConstraintOperator(ABC):
    """Base of the operators of P problems: ties and slacks by slot."""

    problems: DualProblems

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """Return ``M x + c`` by slot, (P,K), at `x` (P,d); 0 in the slot without a constraint."""

    def at_rows(self) -> Tensor:
        """Return the values (P,K) at the rows of the problems themselves."""
        return self.values(self.problems.z)

    @abstractmethod
    def adjoint(self, lam: Tensor) -> Tensor:
        """Return ``Mᵀ lam`` (P,d)."""

    @abstractmethod
    def sizes(self) -> tuple[Tensor, Tensor]:
        """Return magnitudes (P,K) that bound the rounding of rows and of offsets."""

    @abstractmethod
    def absolute_adjoint(self, lam: Tensor) -> Tensor:
        """Return the sum of absolute terms in each entry of :meth:`adjoint`, (P,d)."""

    @abstractmethod
    def take(self, index: Tensor) -> ConstraintOperator:
        """Return the operator of the problems at `index`."""


@final
class FactoredConstraints(ConstraintOperator):
    """Constraints through the logits; rounding is relative to the weights themselves."""

    def __init__(self, problems: DualProblems) -> None:
        self.problems = problems

    def values(self, x: Tensor) -> Tensor:
        """Return ``M x + c`` by slot, (P,K)."""
        head = self.problems.head
        return self.problems.constraints(torch.addmm(head._bias, x, head._weight.T))

    def at_rows(self) -> Tensor:
        """Return the values (P,K) at the rows, from the logits of distinct rows.

        The problems of all classes of a row follow each other.
        """
        z = self.problems.z
        if self.problems.head.num_classes < _MANY or len(z) == 0:
            return self.values(z)
        new = torch.ones(len(z), dtype=torch.bool, device=z.device)
        new[1:] = (z[1:] != z[:-1]).any(dim=1)
        distinct = z[new]
        head = self.problems.head
        logits = torch.addmm(head._bias, distinct, head._weight.T)
        return self.problems.constraints(logits[new.cumsum(dim=0) - 1])

    def adjoint(self, lam: Tensor) -> Tensor:
        """Return ``Mᵀ lam`` (P,d)."""
        head, alpha = self.problems.head, self.problems.coefficients(lam)
        if head.num_classes < _MANY:
            return alpha @ head._weight
        used = alpha != 0
        width = int(used.sum(dim=1).amax()) if len(used) else 0
        if width > _FEW:
            return alpha @ head._weight
        # few weights are gathered for less than a product with all takes
        classes = used.to(torch.uint8).topk(width, dim=1).indices
        return (alpha.gather(1, classes)[:, None] @ head._weight[classes])[:, 0]

    def absolute_adjoint(self, lam: Tensor) -> Tensor:
        """Return Σ |λ| (|w| + |w'|) per coordinate, (P,d)."""
        return self.problems.absolute_coefficients(lam) @ self.problems.head._weight.abs()

    def sizes(self) -> tuple[Tensor, Tensor]:
        """Return |w| + |w'| and |b| + |b'| by slot."""
        head = self.problems.head
        w, other_w = self.problems.of_both_classes(lengths(head._weight))
        b, other_b = self.problems.of_both_classes(head._bias.abs())
        return w + other_w, b + other_b

    def take(self, index: Tensor) -> FactoredConstraints:
        """Return the operator of the problems at `index`."""
        return FactoredConstraints(self.problems.take(index))


@final
class DenseConstraints(ConstraintOperator):
    """Constraints as a dense (P,K,d) array, for few problems."""

    def __init__(self, problems: DualProblems, parts: tuple[Tensor, Tensor] | None = None) -> None:
        self.problems = problems
        self.matrix, self.offset = problems.dense() if parts is None else parts

    @staticmethod
    def batch_size(problems: DualProblems) -> int:
        """Return how many of `problems` may have their rows formed at once (32 MiB)."""
        return max(1, MEMORY_BYTES // (8 * problems.head.num_classes * problems.z.shape[1]))

    def values(self, x: Tensor) -> Tensor:
        """Return ``M x + c`` by slot, (P,K)."""
        return torch.baddbmm(self.offset[..., None], self.matrix, x[..., None])[..., 0]

    def adjoint(self, lam: Tensor) -> Tensor:
        """Return ``Mᵀ lam`` (P,d)."""
        return (lam[:, None, :] @ self.matrix)[:, 0]

    def absolute_adjoint(self, lam: Tensor) -> Tensor:
        """Return Σ |λ| |w - w'| per coordinate, (P,d)."""
        return (lam.abs()[:, None, :] @ self.matrix.abs())[:, 0]

    def sizes(self) -> tuple[Tensor, Tensor]:
        """Return |w - w'| and |b - b'| by slot."""
        return self.problems.per_slot(pair_norms(self.problems.head)), self.offset.abs()

    def take(self, index: Tensor) -> DenseConstraints:
        """Return the operator of the problems at `index`."""
        parts = (self.matrix[index], self.offset[index])
        return DenseConstraints(self.problems.take(index), parts)
