"""The tie problems of one head, and how their multipliers are laid out.

A tie problem asks for the closest point of the domain where given classes tie and no other is
above. One of them, the anchor r, is compared with all others: slot k of a multiplier table
``lam`` (P,K) belongs to ``(w_r - w_k).z' + b_r - b_k``, which is 0 where class k must tie (free
multiplier) and at least 0 elsewhere (multiplier ``>= 0``); slot r is zero. With no class to tie
it is the projection on the region of r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems, empty_slots
from fsboundary.geometry.flips.scalar_dual import solve_tie
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

    def constraints(self, logits: Tensor) -> Tensor:
        """Return ``M x + c`` by slot (P,K) from the logits (P,K) of x."""
        return logits.gather(1, self.anchor[:, None]) - logits

    def coefficients(self, lam: Tensor) -> Tensor:
        """Return α (P,K) with ``Mᵀλ = α @ W``; every row sums to 0."""
        return (-lam).scatter_(1, self.anchor[:, None], lam.sum(dim=1, keepdim=True))

    def absolute_coefficients(self, lam: Tensor) -> Tensor:
        """Return (P,K) the sums of |λ| that each class's weights enter with."""
        size = lam.abs()
        return size.scatter(1, self.anchor[:, None], size.sum(dim=1, keepdim=True))

    def form(self) -> tuple[Tensor, Tensor]:
        """Return M (P,K,d) and c (P,K), slot r zero."""
        w, b = self.head.weight, self.head.bias
        return w[self.anchor][:, None, :] - w, b[self.anchor][:, None] - b

    def row_classes(self, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return classes (P,S) whose weights differ by the rows at `slots`; equal if invalid."""
        first = self.anchor[:, None].expand_as(slots)
        return first, torch.where(valid, slots, first)

    def project(self, lam: Tensor) -> Tensor:
        """Return `lam` with the slack slots clipped at 0."""
        return torch.where(self.free, lam, lam.clamp_min(0.0))

    def natural(self, lam: Tensor, values: Tensor) -> Tensor:
        """Return what is missing for optimality by slot, (P,K), feature units."""
        return torch.where(self.free, values, torch.minimum(lam, values))

    def engage(self, active: Tensor, norms: Tensor) -> Tensor:
        """Return `active` (P,K) with the ties; classes with the anchor's weights have no row."""
        return (active | self.free) & (norms > 0)

    def beaten(self, norms: Tensor) -> Tensor:
        """Return ±1 where a class with the anchor's weights is above it, or apart where tied."""
        bias = self.head.bias
        lead = torch.where(norms == 0, bias[self.anchor][:, None] - bias, 0.0)
        return (lead < 0).to(norms) - (self.free & (lead > 0)).to(norms)

    def misses(
        self, points: Tensor, end: Tensor, values: Tensor, doubt: Tensor, gamma: float
    ) -> Tensor:
        """Return by how much `points` (P,d) break each constraint (P,K), logit units."""
        broken = torch.where(self.free, values.abs(), (-values).clamp_min(doubt.neg())) + doubt
        return broken.scatter_(1, self.anchor[:, None], 0.0)

    def never(self) -> Tensor:
        """Return which constraints (P,K) fail everywhere if the weights they compare are equal."""
        b = self.head.bias
        lead = b[self.anchor][:, None] - b
        return (lead < 0) | (self.free & (lead > 0))

    def question(self, row: int) -> tuple[int, tuple[int, ...]]:
        """Return the anchor and the classes that it must tie with."""
        return int(self.anchor[row]), tuple(self.free[row].nonzero()[:, 0].tolist())

    def laid_out(self, row: int, proof: Tensor) -> Tensor:
        """Return `proof` (K,) itself: its layout is this one."""
        return proof


def tie_problems(head: LinearHead, z: Tensor, classes: Tensor) -> TieProblems:
    """Return the problems in which `classes` (P,M), padded with -1, tie at the top.

    The anchor is the class that is nearest to any other one, by weights: rounding is relative to
    the rows that are formed, so nearly equal classes must be compared with each other.
    """
    # so that neither their order nor the place of the padding matters
    classes = classes.sort(dim=1, descending=True).values
    real, place = classes >= 0, classes.clamp_min(0)
    count = head.num_classes
    member = torch.zeros((len(classes), count + 1), dtype=torch.bool, device=z.device)
    # padding goes to a column of its own
    member = member.scatter_(1, torch.where(real, classes, count), True)[:, :count]
    norms = pair_norms(head)
    nearest = torch.where(norms > 0, norms, torch.finfo(norms.dtype).max).amin(dim=1)
    key = torch.where(real, nearest[place], torch.inf)
    lead = torch.where(norms == 0, head.bias[:, None] - head.bias, 0.0)
    if bool((lead != 0).any()):
        # what equal weights rule out comes first: their biases prove it without rounding
        for column, c in enumerate(place.unbind(dim=1)):
            ruled = ((lead[c] < 0) | (member & (lead[c] != 0))).any(dim=1)
            key[:, column] = torch.where(ruled & real[:, column], -1.0, key[:, column])
    anchor = place.gather(1, key.argmin(dim=1, keepdim=True))
    return TieProblems(head=head, z=z, anchor=anchor[:, 0], free=member.scatter(1, anchor, False))


def tie_start(problems: TieProblems, source: Tensor) -> tuple[Tensor, Tensor]:
    """Return multipliers (P,K) to start from, and where they prove that there is no point (P,).

    In every answer the anchor is not below the `source` (P,), the row's largest logit. That one
    constraint is solved alone; where the anchor is the source, the tie with the tied class
    whose plane is farthest.
    """
    norms = pair_norms(problems.head).index_select(0, problems.anchor)
    i, r = source, problems.anchor
    lead = problems.constraints(problems.head.logits(problems.z))
    reach = torch.where(problems.free & (norms > 0), lead / norms, -torch.inf)
    farthest = reach.argmax(dim=1)
    own = i == r
    slot = torch.where(own, farthest, i)
    target = torch.where(own, farthest, r)
    use = norms.gather(1, slot[:, None])[:, 0] > 0
    use &= ~own | problems.free.gather(1, slot[:, None])[:, 0]
    lam = empty_slots(problems)
    stuck = torch.zeros_like(use)
    rows = use.nonzero()[:, 0]
    multiplier, lost = solve_tie(
        FlipProblems(head=problems.head, z=problems.z[rows], source=i[rows], target=target[rows])
    )
    # the row of the slot is w_r - w_i, or w_i - w_target where the anchor is the source
    lam[rows, slot[rows]] = torch.where(own[rows], multiplier, -multiplier)
    stuck[rows] = lost
    # a source that is below the anchor by rounding asks for a negative one
    return problems.project(lam), stuck
