"""Partitions of feature space into decision regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Partition(Result):
    """Regions and facets of K classes over d features.

    Radii are lower bounds, each with a separate upper bound; the rounding of their evaluation
    is subtracted from the former and added to the latter. Features whose limits are equal do not
    count: balls are measured in the other features.

    Rows are classes: an index gives the tables of the classes that it lists, each once, with pairs
    numbered anew. Nothing is recomputed: facets and regions remain those among all classes.

    Attributes
    ----------
    nonempty : Tensor (K,), bool
        Whether the region is proved to have an interior point in the domain.
    adjacency : Tensor (K, K), bool
        Whether the two classes are proved to share a facet. Symmetric; False on the diagonal.
    facet_radius : Tensor (K, K), float64
        Radius of a ball in the facet about ``facet_centre``; +inf where balls of any size fit, NaN
        where no facet is proved.
    facet_upper : Tensor (K, K), float64
        Upper bound of the radius of every ball in the facet; at most 0 where there is proved to be
        no facet, +inf where nothing is known; NaN for DUPLICATE.
    facet_pairs : Tensor (P, 2)
        Pairs i < j with a proved facet, ascending.
    facet_centre : Tensor (P, d), float64
        Point of each facet: on the tie up to rounding, every other logit strictly smaller, strictly
        inside the domain. Where the whole tie is a face of the domain, or also a tie with a third
        class, the point is on that face, or that logit is equal; a region may then be flat.
    chebyshev_centre : Tensor (K, d), float64
        Centre of a ball in the region; NaN where the region is not proved to be non-empty.
    chebyshev_radius : Tensor (K,), float64
        Radius of that ball, limited by faces of the domain too; +inf where balls of any size fit
        (the centre is then any interior point), NaN where not `nonempty`.
    chebyshev_upper : Tensor (K,), float64
        Upper bound of the radius of every ball in the region; at most 0 where the region is proved
        to be empty or flat.
    bounded : Tensor (K,), bool
        Whether the region is non-empty and bounded, proved by its recession cone.
    redundant : Tensor (K, K), bool
        Row i, column k: whether the region of i is proved to be the same without the constraint of
        k.
    weight_angle : Tensor (K, K), float64
        Angle in radians between w_i and w_j, both minus the mean weight; NaN where one of them
        equals the mean.
    region_status : Tensor (K,)
        CONVERGED (non-empty, the bounds of the radius meet), UNBOUNDED (balls of any size fit),
        INFEASIBLE (proved to have no interior), INACCURATE (non-empty, the bounds are apart) or
        UNDECIDED.
    bounded_status : Tensor (K,)
        CONVERGED (bounded), UNBOUNDED (not bounded), both proved; INFEASIBLE (no interior) or
        UNDECIDED.
    status : Tensor (K, K)
        CONVERGED (facet, the bounds of its radius meet), UNBOUNDED (facet, balls of any size fit),
        INFEASIBLE (proved to have no facet), DUPLICATE (equal weights and biases; the diagonal),
        INACCURATE (facet, but the bounds of its radius are apart, for example if a point proved it
        and no linear program was run) or UNDECIDED (neither a facet nor its absence is proved).
    witnessed : Tensor (K, K), bool
        Whether a point proved the facet before any linear program of the pair.
    num_programs : int
        Number of linear programs solved for this result, including those from a resumed file.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> part = fsb.partition(head, fsb.Domain.box(torch.zeros(3), torch.ones(3)))
    >>> part.neighbours(0).sort().values
    tensor([1, 2])
    >>> part.chebyshev_radius.round(decimals=4).tolist()
    [0.2929, 0.2929, 0.2929]
    """

    nonempty: Bool[Tensor, " K"]
    adjacency: Bool[Tensor, "K K"]
    facet_radius: Float64[Tensor, "K K"]
    facet_upper: Float64[Tensor, "K K"]
    facet_pairs: Int[Tensor, "P 2"]
    facet_centre: Float64[Tensor, "P d"]
    chebyshev_centre: Float64[Tensor, "K d"]
    chebyshev_radius: Float64[Tensor, " K"]
    chebyshev_upper: Float64[Tensor, " K"]
    bounded: Bool[Tensor, " K"]
    redundant: Bool[Tensor, "K K"]
    weight_angle: Float64[Tensor, "K K"]
    region_status: Int[Tensor, " K"]
    bounded_status: Int[Tensor, " K"]
    status: Int[Tensor, "K K"]
    witnessed: Bool[Tensor, "K K"]
    num_programs: int

    _AXES: ClassVar[tuple[str, ...]] = ("class", "other")
    _STATUSES: ClassVar[tuple[str, ...]] = ("status", "region_status", "bounded_status")

    @property
    def fraction_witnessed(self) -> float:
        """Fraction of the pairs of classes whose facet was proved by a witness."""
        return self._fraction_of_pairs(self.witnessed)

    @property
    def fraction_undecided(self) -> float:
        """Fraction of the pairs of classes that are not known to have a facet or to have none."""
        return self._fraction_of_pairs(self.status == Status.UNDECIDED)

    def neighbours(self, i: int) -> Int[Tensor, " N"]:
        """Return the classes that share a proved facet with class `i`, widest facet first."""
        count = int(self.adjacency[i].sum())
        width = torch.where(self.adjacency[i], self.facet_radius[i], -torch.inf)
        return width.argsort(descending=True, stable=True)[:count]

    def thinnest(self, n: int) -> Int[Tensor, "N 2"]:
        """Return the at most `n` pairs with a proved facet whose radius is smallest, ascending.

        A radius proved only by a witness may be far below the true one. If that matters, pass the
        pair in ``partition(..., pairs=...)``.
        """
        i, j = self.facet_pairs.unbind(dim=1)
        return self.facet_pairs[self.facet_radius[i, j].argsort(stable=True)[:n]]

    def narrowest(self, n: int) -> Int[Tensor, " N"]:
        """Return the at most `n` proved regions with the smallest Chebyshev radius, ascending."""
        radius = torch.where(self.nonempty, self.chebyshev_radius, torch.inf)
        order = radius.argsort(stable=True)
        return order[self.nonempty[order]][:n]

    def _fraction_of_pairs(self, table: Tensor) -> float:
        k = len(table)
        return float(table.triu(1).sum()) / (k * (k - 1) / 2)

    def _take(self, index: slice | Tensor) -> Self:
        """Return the tables of the classes at `index`; `facet_pairs` index them."""
        classes = torch.arange(len(self.nonempty), device=self.nonempty.device)[index]
        new_index = torch.full_like(self.nonempty, -1, dtype=torch.int64)
        new_index[classes] = torch.arange(len(classes), device=classes.device)
        pairs = new_index[self.facet_pairs]
        inside = (pairs >= 0).all(dim=1)
        values = self.to_dict()
        for name, value in values.items():
            if name in ("facet_pairs", "num_programs"):
                continue
            if name == "facet_centre":
                values[name] = value[inside]
            elif value.ndim == 2 and name != "chebyshev_centre":
                values[name] = value[classes][:, classes]
            else:
                values[name] = value[classes]
        pairs = pairs[inside].sort(dim=1).values
        order = (pairs[:, 0] * len(classes) + pairs[:, 1]).argsort()
        values["facet_pairs"] = pairs[order]
        values["facet_centre"] = values["facet_centre"][order]
        return type(self)(**values)
