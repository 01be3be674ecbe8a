"""The flip problems of one head, and how their multipliers are laid out.

A multiplier table ``lam`` (P,K) holds, for the problem of row z with source i and target j:
slot j the free multiplier of the tie ``(w_i - w_j).z' + b_i - b_j = 0``, slot k the multiplier
``>= 0`` of the slack ``(w_j - w_k).z' + b_j - b_k >= 0``, slot i zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.geometry.pairs import pair_norms
from fsboundary.head import LinearHead


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipProblems:
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

    def __len__(self) -> int:
        return len(self.z)

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

    def row_norms(self) -> Tensor:
        """Return the norm of each slot's constraint row, (P,K)."""
        return self.per_slot(pair_norms(self.head))


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
