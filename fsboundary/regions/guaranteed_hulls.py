"""Generators of a guaranteed hull, moved towards the border of their region.

Guaranteed hulls: the hull of a class's training features, and a ball around each of its points.

Let V be training features strictly in the polyhedron of class i, and c (the clearance) the
smallest half-space distance of any of them (:mod:`fsboundary.geometry.regions.guaranteed_sets`). Every point
p of the hull of V is at least c from every plane on which another class draws level, since these
distances are linear. So a point z nearer than c to the hull lies strictly in region i: its exact
class is i, and no other class's hull can hold it. One projection a row decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_bank_features
from fsboundary.core.checks import check_head, rows_and_sources
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import CertifiedClasses, FeatureBatch
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.norms import pair_norms
from fsboundary.geometry.regions.guaranteed_sets import depths, hull_distance_bound
from fsboundary.hulls import hull_projection


def check_inflation(fraction: float, limit: float) -> None:
    """Raise ArgumentError unless both numbers are in their range."""
    if not 0 <= fraction < 1:
        raise ArgumentError("fraction", str(fraction), "a number in [0, 1)", "pass 0.9, say")
    if not 1 <= limit < math.inf:
        raise ArgumentError("limit", str(limit), "a finite number, at least 1", "pass 10, say")


def inflate(
    head: LinearHead, source: int, bank: FeatureBank, fraction: float, limit: float
) -> tuple[FeatureBank, Tensor]:
    """Return the moved generators and their clearance, ().

    A generator v goes to ``c + t (v - c)`` with c the mean, which is in the region for it is
    convex. At the border t is T, the smallest root of the K - 1 margins, which are linear in t;
    here t = 1 + fraction (T - 1). A margin that is not negative at T is at least (1 - fraction) times
    its value at v. Whatever rounding does on the way, every moved generator is measured again as
    it is stored, and one that has lost more than half of what it should have left stays at v.

    Parameters
    ----------
    head : LinearHead
    source : int
        The class whose generators `bank` holds.
    bank : FeatureBank
    fraction, limit : float
        As checked by :func:`check_inflation`.
    """
    step = chunk_rows(bank.num_features, 4096)
    rows = [torch.arange(p.start, p.stop) for p in chunks(len(bank), step)]
    total = torch.zeros_like(head.weight[0])
    for index in rows:
        total += bank.take(index).to(total.device).sum(dim=0)
    centre = total / len(bank)
    at_centre = _margins(head, source, centre[None])
    moved, depth = [], []
    for index in rows:
        v = bank.take(index).to(centre.device)
        fall = at_centre - _margins(head, source, v)
        root = torch.where(fall > 0, at_centre / fall, torch.inf).amin(dim=1)
        factor = 1 + fraction * (root.clamp(1.0, limit) - 1)
        end = centre + factor[:, None] * (v - centre)
        # rows that were float32 stay so: half the memory, and the same speed as before
        if torch.equal(v.to(torch.float32).to(v.dtype), v):
            end = end.to(torch.float32).to(v.dtype)
        own = torch.full_like(index, source, device=v.device)
        before, after = depths(head, v, own), depths(head, end, own)
        stays = ~(after >= (1 - fraction) / 2 * before)
        moved.append(torch.where(stays[:, None], v, end))
        depth.append(torch.where(stays, before, after))
    points = torch.cat(moved)
    narrow = points.to(torch.float32)
    kept = narrow if torch.equal(narrow.to(points.dtype), points) else points
    return FeatureBank(kept), torch.cat(depth).min()


def _margins(head: LinearHead, source: int, z: Tensor) -> Tensor:
    """Return ``(w_i - w_k).z + b_i - b_k`` for all k, (B,K), from explicit differences."""
    normal = head.weight[source] - head.weight
    return z @ normal.T + (head.bias[source] - head.bias)


_FEW_STEPS = 12
"""Passes over the generators that nearly always decide; a row deep in a thin hull may need all."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuaranteedHulls:
    """Sets in which the class is guaranteed: one hull a class, widened by its clearance.

    Made by :func:`fsboundary.guaranteed_hulls`.

    Attributes
    ----------
    head : LinearHead
    bank : FeatureBank
        The training features.
    clearance : Tensor (K,), float64
        Every point of the domain nearer than this to the hull has the class. Feature units; +inf
        where no other class can be reached, NaN where the class has no generators.
    counts : Tensor (K,)
        Generators of each class.
    status : Tensor (K,)
        CONVERGED; UNBOUNDED where the clearance is +inf; INFEASIBLE where no row of the bank lies
        strictly in the region, DUPLICATE where none can, for another class is equal.
    generators : tuple of FeatureBank or None
        Of each class.
    """

    head: LinearHead
    bank: FeatureBank
    clearance: Float64[Tensor, " K"]
    counts: Int[Tensor, " K"]
    status: Int[Tensor, " K"]
    generators: tuple[FeatureBank | None, ...]

    def certify(self, features: Float[Tensor, "B d"] | FeatureBatch) -> Tensor:
        """Return the class (B,) of each row that a guaranteed hull holds, -1 for the others.

        A certified class is always the head's own prediction: that is a theorem about the head,
        and no evidence that the prediction is right.

        Raises
        ------
        ArgumentError
            Wrong type or shape.
        HeadMismatchError
            A FeatureBatch of another head, extractor or layer than the bank's.
        """
        return self.check(features).certified

    def check(self, features: Float[Tensor, "B d"] | FeatureBatch) -> CertifiedClasses:
        """Return what :meth:`certify` does, with distances and statuses.

        Raises
        ------
        ArgumentError
            Wrong type or shape.
        HeadMismatchError
            A FeatureBatch of another head, extractor or layer than the bank's.
        """
        z = check_bank_features(self.bank, features)
        head, clearance = self.head.to(z.device), self.clearance.to(z.device)
        status, source = rows_and_sources(head, z)
        upper = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        lower = torch.zeros_like(upper)
        fine = status == Status.CONVERGED
        for k, bank in enumerate(self.generators):
            rows = (fine & (source == k)).nonzero()[:, 0]
            if bank is None:
                upper[rows] = lower[rows] = torch.inf
                status[rows] = int(Status.INFEASIBLE)
            elif len(rows):
                upper[rows], lower[rows] = _distances(bank, z[rows], float(clearance[k]))
        limit = torch.where(source >= 0, clearance[source], torch.nan)
        holds = fine & (upper < limit)
        open_ = fine & (lower < limit) & ~holds
        return CertifiedClasses(
            certified=torch.where(holds, source, -1),
            source=source,
            distance=upper,
            lower_bound=lower,
            clearance=limit,
            status=torch.where(open_, int(Status.UNDECIDED), status),
        )

    def inflated(self, fraction: float = 0.9, *, limit: float = 10.0) -> GuaranteedHulls:
        """Return hulls of the same generators, moved outwards towards the border of their region.

        Each generator moves along the ray from the mean of its class. The new hulls hold the old
        ones up to rounding, and their clearance is about ``1 - fraction`` of the old one: the larger
        the hull, the thinner the layer around it. Generators may leave the domain, which does no
        harm: only rows of the domain are certified.

        Parameters
        ----------
        fraction : float
            How much of the way to the border, at least 0 and below 1.
        limit : float
            A generator moves to at most this many times its distance from the mean; at least 1.
            It counts where the ray never meets a border.

        Returns
        -------
        GuaranteedHulls
            Kept in memory.

        Raises
        ------
        ArgumentError
            `fraction` or `limit` out of range.
        """
        check_inflation(fraction, limit)
        banks, clearance = list(self.generators), self.clearance.clone()
        for k, bank in enumerate(banks):
            if bank is not None:
                banks[k], clearance[k] = inflate(self.head, k, bank, fraction, limit)
        return GuaranteedHulls(
            head=self.head,
            bank=self.bank,
            clearance=clearance,
            counts=self.counts,
            status=self.status,
            generators=tuple(banks),
        )


def guaranteed_hulls(head: LinearHead, bank: FeatureBank) -> GuaranteedHulls:
    """Return, for each class, the hull of its training features as a set of guaranteed class.

    Generators of class i are the rows that the head itself puts in class i, in float64, by a
    margin above the rounding bound of its evaluation; labels are not looked at. The clearance is
    lowered by its own rounding (design.md, section 1, "Guaranteed hull").

    Parameters
    ----------
    head : LinearHead
    bank : FeatureBank
        Features of training images, which alone should shape the hulls. Rows outside the domain
        do not count.

    Returns
    -------
    GuaranteedHulls
        With ``.clearance`` (K,) and ``.certify(features)``.

    Raises
    ------
    ArgumentError
        Wrong types, or a bank of another width.
    """
    check_head(head)
    bank = check_width(head, bank)
    parts = []
    for part in chunks(len(bank), chunk_rows(bank.num_features, 4096)):
        v = bank.take(torch.arange(part.start, part.stop)).to(head.weight.device)
        own = head.predict(v)
        parts.append((own, depths(head, v, own), head.domain.contains(v)))
    source, depth, inside = (torch.cat(t) for t in zip(*parts, strict=True))
    strict = inside & (depth > 0)
    clearance = torch.full_like(head.bias, torch.nan)
    counts = torch.zeros_like(source[:1]).repeat(head.num_classes)
    generators: list[FeatureBank | None] = []
    for k in range(head.num_classes):
        rows = (strict & (source == k)).nonzero()[:, 0].cpu()
        counts[k] = len(rows)
        generators.append(bank.select(rows) if len(rows) else None)
        if len(rows):
            clearance[k] = depth[rows].amin()
    status = torch.where(torch.isinf(clearance), int(Status.UNBOUNDED), int(Status.CONVERGED))
    status = torch.where(counts == 0, int(Status.INFEASIBLE), status)
    return GuaranteedHulls(
        head=head,
        bank=bank,
        clearance=clearance,
        counts=counts,
        status=torch.where(_repeated(head), int(Status.DUPLICATE), status),
        generators=tuple(generators),
    )


def check_width(head: LinearHead, bank: object) -> FeatureBank:
    """Return `bank`, or raise ArgumentError unless it is a FeatureBank of the head's width."""
    bank = check_bank(bank)
    if bank.num_features != head.num_features:
        raise ArgumentError(
            "bank",
            f"width {bank.num_features}",
            f"width {head.num_features}",
            "make the bank from features of the same layer as the head",
        )
    return bank


def _repeated(head: LinearHead) -> Tensor:
    """Whether another class has the same weights and bias, (K,)."""
    same = (pair_norms(head) == 0) & (head.bias[:, None] == head.bias)
    return same.sum(dim=1) > 1


def _distances(bank: FeatureBank, z: Tensor, clearance: float) -> tuple[Tensor, Tensor]:
    """Return bounds (B,) of the distances to the hull of `bank`, above and below.

    They are as tight as it takes to compare with the clearance: a row that a few steps leave
    undecided is projected again with the usual limit.
    """
    upper = torch.full_like(z[:, 0], torch.inf)
    lower = torch.zeros_like(upper)
    open_ = torch.arange(len(z), device=z.device)
    for limit in (_FEW_STEPS, None):
        found = hull_projection(bank, z[open_], max_steps=limit)
        for part in chunks(len(open_), chunk_rows(found.support.shape[1] * z.shape[1])):
            generators = bank.take(found.support[part].clamp_min(0)).to(z.device)
            bound = hull_distance_bound(generators, found.weights[part], z[open_[part]])
            upper[open_[part]] = torch.minimum(upper[open_[part]], bound)
        lower[open_] = torch.maximum(lower[open_], found.lower_bound)
        open_ = open_[(upper[open_] >= clearance) & (lower[open_] < clearance)]
        if not len(open_):
            break
    return upper, lower
