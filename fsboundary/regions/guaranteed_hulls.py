"""Guaranteed hulls: the hull of a class's training features, and a ball around each of its points.

Let V be training features strictly in the polyhedron of class i, and c (the clearance) the smallest
half-space distance of any of them (:mod:`fsboundary.geometry.regions.guaranteed_sets`). Every point
p of the hull of V is at least c from every plane on which another class ties with i, because these
distances are linear. So a point z nearer than c to the hull lies strictly in region i: its exact
class is i, and no other class's hull can contain it. One projection per row decides. Inflated hulls
have generators moved towards the border of their region.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_bank_features
from fsboundary.core.checks import check_head, check_number, rows_and_sources
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import CertifiedClasses, FeatureBatch
from fsboundary.core.results.base.display import lines, number_words, status_words, title
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.norms import pair_norms
from fsboundary.geometry.regions.guaranteed_sets import halfspace_distances, hull_distance_bound
from fsboundary.hulls import hull_projection
from fsboundary.modes import in_standard_modes


def _inflate_generators(
    head: LinearHead, source: int, bank: FeatureBank, fraction: float, limit: float
) -> tuple[FeatureBank, Tensor]:
    """Return the moved generators and their clearance, ().

    A generator v moves to ``c + t (v - c)`` with c the mean, which is in the region because that
    is convex. At the border t is T, the smallest root of the K - 1 margins, which are linear in t;
    here t = 1 + fraction (T - 1). A margin that is not negative at T is at least (1 - fraction)
    times its value at v. Whatever the rounding, every moved generator is measured again as it is
    stored, and one that has lost more than half of the distance it should have left stays at v.

    Parameters
    ----------
    head : LinearHead
    source : int
        The class whose generators `bank` holds.
    bank : FeatureBank
    fraction, limit : float
        Numbers checked by :func:`_check_inflation`.
    """
    size = chunk_rows(bank.num_features, 4096)
    rows = [torch.arange(part.start, part.stop) for part in chunks(len(bank), size)]
    total = torch.zeros_like(head._weight[0])
    for index in rows:
        total += bank.take(index).to(total.device).sum(dim=0)
    centre = total / len(bank)
    at_centre = _margins(head, source, centre[None])
    moved, distances = [], []
    for index in rows:
        v = bank.take(index).to(centre.device)
        fall = at_centre - _margins(head, source, v)
        root = torch.where(fall > 0, at_centre / fall, torch.inf).amin(dim=1)
        factor = 1 + fraction * (root.clamp(1.0, limit) - 1)
        end = centre + factor[:, None] * (v - centre)
        # float32 rows stay float32: half the memory, and the same speed as before
        if torch.equal(v.to(torch.float32).to(v.dtype), v):
            end = end.to(torch.float32).to(v.dtype)
        classes = torch.full_like(index, source, device=v.device)
        before = halfspace_distances(head, v, classes)
        after = halfspace_distances(head, end, classes)
        stays = ~(after >= (1 - fraction) / 2 * before)
        moved.append(torch.where(stays[:, None], v, end))
        distances.append(torch.where(stays, before, after))
    points = torch.cat(moved)
    narrow = points.to(torch.float32)
    exact = torch.equal(narrow.to(points.dtype), points)
    return FeatureBank(narrow if exact else points), torch.cat(distances).min()


def _margins(head: LinearHead, source: int, z: Tensor) -> Tensor:
    """Return ``(w_i - w_k).z + b_i - b_k`` for all k, (B,K), from explicit differences."""
    normal = head._weight[source] - head._weight
    return z @ normal.T + (head._bias[source] - head._bias)


_FEW_STEPS = 12
"""Passes over the generators, usually enough to decide; a row deep in a thin hull may need more."""


@final
class GuaranteedHulls:
    """Sets in which the class is guaranteed: one hull per class, widened by its clearance.

    Returned by :func:`fsboundary.guaranteed_hulls`; immutable. Rows are certified by the clearance,
    so the hulls own it, and tensors are returned as copies.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> hulls = fsb.guaranteed_hulls(head, bank)
    >>> hulls.clearance.round(decimals=4).tolist()
    [2.1213, 2.1213]
    """

    def __init__(
        self,
        *,
        head: LinearHead,
        bank: FeatureBank,
        clearance: Float64[Tensor, " K"],
        counts: Int[Tensor, " K"],
        status: Int[Tensor, " K"],
        generators: tuple[FeatureBank | None, ...],
    ) -> None:
        self._head, self._bank, self._generators = head, bank, generators
        self._clearance, self._counts, self._status = (
            t.clone() for t in (clearance, counts, status)
        )

    @property
    def head(self) -> LinearHead:
        """Head whose classes are certified."""
        return self._head

    @property
    def bank(self) -> FeatureBank:
        """Training features."""
        return self._bank

    @property
    def clearance(self) -> Tensor:
        """Distance from each hull below which every point of the domain has the class, (K,).

        Feature units; +inf where no other class can be reached, NaN where the class has no
        generators.
        """
        return self._clearance.clone()

    @property
    def counts(self) -> Tensor:
        """Number of generators of each class (K,)."""
        return self._counts.clone()

    @property
    def status(self) -> Tensor:
        """Status of each class (K,).

        CONVERGED; UNBOUNDED where the clearance is +inf; INFEASIBLE where no row of the bank lies
        strictly in the region, DUPLICATE where none can, because another class is equal.
        """
        return self._status.clone()

    @property
    def generators(self) -> tuple[FeatureBank | None, ...]:
        """Generators of each class; None where there are none."""
        return self._generators

    def __repr__(self) -> str:
        sizes = {"K": len(self._counts), "d": self._head.num_features}
        facts = {
            "status": status_words(self._status),
            "clearance": number_words(self._clearance),
            "counts": number_words(self._counts),
        }
        return lines(title("GuaranteedHulls", sizes), facts, [])

    @in_standard_modes
    def certify(self, features: Float[TensorOrArray, "B d"] | FeatureBatch) -> Tensor:
        """Return the class (B,) of each row that a guaranteed hull contains, -1 for the others.

        A certified class is always the head's own prediction: this is a theorem about the head,
        and no evidence that the prediction is correct.

        Raises
        ------
        ArgumentError
            Wrong type or shape.
        HeadMismatchError
            A FeatureBatch of another head, extractor or layer than the bank's.
        """
        return self.check(features).certified

    @in_standard_modes
    def check(self, features: Float[TensorOrArray, "B d"] | FeatureBatch) -> CertifiedClasses:
        """Return the classes of :meth:`certify`, with distances and statuses.

        Raises
        ------
        ArgumentError
            Wrong type or shape.
        HeadMismatchError
            A FeatureBatch of another head, extractor or layer than the bank's.
        """
        z = check_bank_features(self.bank, features)
        head, clearance = self.head.to(z.device), self._clearance.to(z.device)
        status, source = rows_and_sources(head, z)
        upper = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        lower = torch.zeros_like(upper)
        usable = status == Status.CONVERGED
        for k, bank in enumerate(self.generators):
            rows = (usable & (source == k)).nonzero()[:, 0]
            if bank is None:
                upper[rows] = lower[rows] = torch.inf
                status[rows] = int(Status.INFEASIBLE)
            elif len(rows):
                upper[rows], lower[rows] = _distances(bank, z[rows], float(clearance[k]))
        limit = torch.where(source >= 0, clearance[source], torch.nan)
        certified = usable & (upper < limit)
        undecided = usable & (lower < limit) & ~certified
        return CertifiedClasses(
            certified=torch.where(certified, source, -1),
            source=source,
            distance=upper,
            lower_bound=lower,
            clearance=limit,
            status=torch.where(undecided, int(Status.UNDECIDED), status),
        )

    @in_standard_modes
    def inflated(self, fraction: float = 0.9, *, limit: float = 10.0) -> GuaranteedHulls:
        """Return hulls of the same generators, moved outwards towards the border of their region.

        Each generator moves along the ray from the mean of its class. The new hulls contain the
        old ones up to rounding, and their clearance is about ``1 - fraction`` of the old one: the
        larger the hull, the thinner the layer around it. Generators may leave the domain, which is
        harmless because only rows of the domain are certified.

        Parameters
        ----------
        fraction : float
            Fraction of the path to the border, at least 0 and below 1.
        limit : float
            Maximum factor by which a generator's distance from the mean grows, at least 1. It
            matters if the ray never meets a border.

        Returns
        -------
        GuaranteedHulls
            Hulls whose generators are in memory.

        Raises
        ------
        ArgumentError
            `fraction` or `limit` out of range.
        """
        check_number("fraction", fraction, 0, 1, closed="low", fix="pass 0.9, for example")
        check_number("limit", limit, 1, closed="low", fix="pass 10, for example")
        banks, clearance = list(self.generators), self.clearance.clone()
        for k, bank in enumerate(banks):
            if bank is not None:
                banks[k], clearance[k] = _inflate_generators(self.head, k, bank, fraction, limit)
        return GuaranteedHulls(
            head=self.head,
            bank=self.bank,
            clearance=clearance,
            counts=self.counts,
            status=self.status,
            generators=tuple(banks),
        )


@in_standard_modes
def guaranteed_hulls(head: LinearHead, bank: FeatureBank) -> GuaranteedHulls:
    """Return, for each class, the hull of its training features as a set of guaranteed class.

    Generators of class i are the rows that the head itself assigns to class i, in float64, by a
    margin above the rounding bound of its evaluation; labels are not used. The clearance is
    lowered by its own rounding (design.md, section 1, "Guaranteed hull").

    Parameters
    ----------
    head : LinearHead
    bank : FeatureBank
        Features of training examples; no others should shape the hulls. Rows outside the
        domain do not count.

    Returns
    -------
    GuaranteedHulls
        With ``.clearance`` (K,) and ``.certify(features)``.

    Raises
    ------
    ArgumentError
        Wrong types, or a bank of another width.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> hulls = fsb.guaranteed_hulls(head, bank)
    >>> hulls.certify(z).tolist()  # the class that is certified, or -1
    [0, -1]
    """
    check_head(head)
    bank = check_bank(bank, head.num_features)
    parts = []
    for part in chunks(len(bank), chunk_rows(bank.num_features, 4096)):
        v = bank.take(torch.arange(part.start, part.stop)).to(head.device)
        predicted = head.predict(v)
        distance = halfspace_distances(head, v, predicted)
        parts.append((predicted, distance, head.domain.contains(v)))
    source, distance, inside = (torch.cat(t) for t in zip(*parts, strict=True))
    strict = inside & (distance > 0)
    clearance = torch.full_like(head._bias, torch.nan)
    counts = torch.zeros_like(source[:1]).repeat(head.num_classes)
    generators: list[FeatureBank | None] = []
    for k in range(head.num_classes):
        rows = (strict & (source == k)).nonzero()[:, 0].cpu()
        counts[k] = len(rows)
        generators.append(bank.select(rows) if len(rows) else None)
        if len(rows):
            clearance[k] = distance[rows].amin()
    status = torch.where(torch.isinf(clearance), int(Status.UNBOUNDED), int(Status.CONVERGED))
    status = torch.where(counts == 0, int(Status.INFEASIBLE), status)
    return GuaranteedHulls(
        head=head,
        bank=bank,
        clearance=clearance,
        counts=counts,
        status=torch.where(_duplicates(head), int(Status.DUPLICATE), status),
        generators=tuple(generators),
    )


def _duplicates(head: LinearHead) -> Tensor:
    """Return whether another class has the same weights and bias, (K,)."""
    same = (pair_norms(head) == 0) & (head._bias[:, None] == head._bias)
    return same.sum(dim=1) > 1


def _distances(bank: FeatureBank, z: Tensor, clearance: float) -> tuple[Tensor, Tensor]:
    """Return upper and lower bounds (B,) of the distances to the hull of `bank`.

    They are as tight as the comparison with the clearance needs: a row that a few steps leave
    undecided is projected again with the usual limit.
    """
    upper = torch.full_like(z[:, 0], torch.inf)
    lower = torch.zeros_like(upper)
    rows = torch.arange(len(z), device=z.device)
    for limit in (_FEW_STEPS, None):
        projection = hull_projection(bank, z[rows], max_steps=limit)
        for part in chunks(len(rows), chunk_rows(projection.support.shape[1] * z.shape[1])):
            generators = bank.take(projection.support[part].clamp_min(0)).to(z.device)
            bound = hull_distance_bound(generators, projection.weights[part], z[rows[part]])
            upper[rows[part]] = torch.minimum(upper[rows[part]], bound)
        lower[rows] = torch.maximum(lower[rows], projection.lower_bound)
        rows = rows[(upper[rows] >= clearance) & (lower[rows] < clearance)]
        if not len(rows):
            break
    return upper, lower
