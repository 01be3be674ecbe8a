"""The tie problems of one head.

The solution of a tie problem is the closest point of the domain where given classes tie and no
other class is above them. One of them, the anchor r, is compared with all others: slot k of a
multiplier table ``lam`` (P,K) belongs to ``(w_r - w_k).z' + b_r - b_k``, which is 0 where class k
must tie (free multiplier) and at least 0 elsewhere (multiplier ``>= 0``); slot r is zero. With no
class to tie it is the projection on the region of r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.flips.constraints import FactoredConstraints
from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems, empty_slots
from fsboundary.geometry.flips.scalar_dual import solve_scalar_dual
from fsboundary.geometry.norms import pair_norms


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TieProblems(DualProblems):
    """P tie problems of one head.

    Attributes
    ----------
    head : LinearHead
    z : Tensor (P, d), float64, inside the domain
    anchor : Tensor (P,)
    free : Tensor (P, K), bool
        The classes that must tie with the anchor; False at the anchor.
    """

    head: LinearHead
    z: Tensor
    anchor: Tensor
    free: Tensor

    def take(self, index: Tensor | slice) -> TieProblems:
        """Return the problems at `index`."""
        return TieProblems(
            head=self.head, z=self.z[index], anchor=self.anchor[index], free=self.free[index]
        )

    def per_slot(self, pairs: Tensor) -> Tensor:
        """Lay out a class-pair table (K,K) by slot, (P,K): the row of the anchor."""
        return pairs.index_select(0, self.anchor)

    def of_both_classes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return values of the anchors (P,1), and of all classes (1,K)."""
        return values[self.anchor][:, None], values[None]

    def constraints(self, logits: Tensor) -> Tensor:
        """Return ``M x + c`` by slot (P,K) from the logits (P,K) of x."""
        return logits.gather(1, self.anchor[:, None]) - logits

    def coefficients(self, lam: Tensor) -> Tensor:
        """Return α (P,K) with ``Mᵀλ = α @ W``; every row sums to 0."""
        return (-lam).scatter_(1, self.anchor[:, None], lam.sum(dim=1, keepdim=True))

    def absolute_coefficients(self, lam: Tensor) -> Tensor:
        """Return the sums of |λ| with which each class's weights enter, (P,K)."""
        size = lam.abs()
        return size.scatter(1, self.anchor[:, None], size.sum(dim=1, keepdim=True))

    def dense(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K); slot r is zero."""
        w, b = self.head._weight, self.head._bias
        return w[self.anchor][:, None, :] - w, b[self.anchor][:, None] - b

    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the anchor, the other classes and the signs of the rows at `slots`."""
        return self.anchor, slots, -valid.to(self.z)

    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with the slack slots clipped at 0."""
        return torch.where(self.free, lam, lam.clamp_min(0.0))

    def natural_residual(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return the natural residual by slot, (P,K), feature units."""
        return torch.where(self.free, values, torch.minimum(lam, values))

    def working_set(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) plus the ties; classes with the anchor's weights have no row."""
        return (active | self.free) & (norms > 0)

    def trivial_certificates(self, norms: Tensor) -> Tensor:
        """Return ±1 where a class with the anchor's weights is above it, or apart where tied."""
        bias = self.head._bias
        lead = torch.where(norms == 0, bias[self.anchor][:, None] - bias, 0.0)
        return (lead < 0).to(norms) - (self.free & (lead > 0)).to(norms)

    def violations(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) violate each constraint (P,K), logit units."""
        violation = torch.where(self.free, values.abs(), (-values).clamp_min(doubt.neg())) + doubt
        return violation.scatter_(1, self.anchor[:, None], 0.0)

    def infeasible_constants(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""
        b = self.head._bias
        lead = b[self.anchor][:, None] - b
        return (lead < 0) | (self.free & (lead > 0))

    def infeasibility_key(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the anchor and the classes that it must tie with."""
        return int(self.anchor[row]), tuple(self.free[row].nonzero()[:, 0].tolist())

    def to_slots(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,) itself: the layout is the same."""
        return proof


def tie_problems(
    head: LinearHead, z: Float64[Tensor, "P d"], classes: Int[Tensor, "P M"]
) -> TieProblems:
    """Return the problems in which `classes` (P,M), padded with -1, tie as the highest.

    The anchor is the class that is nearest to any other one, by weights: rounding is relative to
    the rows that are formed, so nearly equal classes must be compared with each other.
    """
    # makes the result independent of their order and of the position of the padding
    classes = classes.sort(dim=1, descending=True).values
    valid, index = classes >= 0, classes.clamp_min(0)
    count = head.num_classes
    member = torch.zeros((len(classes), count + 1), dtype=torch.bool, device=z.device)
    # padding goes to its own column
    member = member.scatter_(1, torch.where(valid, classes, count), True)[:, :count]
    norms = pair_norms(head)
    nearest = torch.where(norms > 0, norms, torch.finfo(norms.dtype).max).amin(dim=1)
    key = torch.where(valid, nearest[index], torch.inf)
    lead = torch.where(norms == 0, head._bias[:, None] - head._bias, 0.0)
    if bool((lead != 0).any()):
        # classes ruled out by equal weights come first: their biases prove it without rounding
        for column, c in enumerate(index.unbind(dim=1)):
            infeasible = ((lead[c] < 0) | (member & (lead[c] != 0))).any(dim=1)
            key[:, column] = torch.where(infeasible & valid[:, column], -1.0, key[:, column])
    anchor = index.gather(1, key.argmin(dim=1, keepdim=True))
    return TieProblems(head=head, z=z, anchor=anchor[:, 0], free=member.scatter(1, anchor, False))


def tie_start(
    problems: TieProblems, source: Int[Tensor, " P"]
) -> tuple[Float64[Tensor, "P K"], Bool[Tensor, " P"]]:
    """Return initial multipliers (P,K), and where they prove that there is no point (P,).

    In every solution the anchor is not below the `source` (P,), the row's largest logit. Only that
    constraint is solved; where the anchor is the source, the tie with the tied class whose plane
    is farthest.
    """
    norms = pair_norms(problems.head).index_select(0, problems.anchor)
    i, r = source, problems.anchor
    lead = FactoredConstraints(problems).at_rows()
    plane_distance = torch.where(problems.free & (norms > 0), lead / norms, -torch.inf)
    farthest = plane_distance.argmax(dim=1)
    is_source = i == r
    slot = torch.where(is_source, farthest, i)
    target = torch.where(is_source, farthest, r)
    use = norms.gather(1, slot[:, None])[:, 0] > 0
    use &= ~is_source | problems.free.gather(1, slot[:, None])[:, 0]
    lam = empty_slots(problems)
    unreachable = torch.zeros_like(use)
    rows = use.nonzero()[:, 0]
    multiplier, unreachable[rows] = solve_scalar_dual(
        FlipProblems(head=problems.head, z=problems.z[rows], source=i[rows], target=target[rows])
    )
    # the row of the slot is w_r - w_i, or w_i - w_target where the anchor is the source
    lam[rows, slot[rows]] = torch.where(is_source[rows], multiplier, -multiplier)
    # where rounding puts the source below the anchor the multiplier is negative
    return problems.project(lam), unreachable
