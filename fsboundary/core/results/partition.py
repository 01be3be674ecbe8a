"""How a head divides feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.results.base import Result
from fsboundary.core.status import Status


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition(Result):
    """Regions and facets of K classes over d features.

    Radii are lower bounds, with upper bounds beside them; both are lowered and raised by the
    rounding of their own evaluation. Features whose limits agree do not count: balls are measured
    in the others.

    Attributes
    ----------
    nonempty : Tensor (K,), bool
        The region has an interior point in the domain, proved.
    adjacency : Tensor (K, K), bool
        The two classes share a facet, proved. Symmetric; False on the diagonal.
    facet_radius : Tensor (K, K), float64
        Radius of a ball of the facet about ``facet_centre``; +inf where balls of any size fit, NaN
        where no facet is proved.
    facet_upper : Tensor (K, K), float64
        No ball of the facet is larger; not above 0 where there is proved to be no facet, +inf where
        nothing is known; NaN for DUPLICATE.
    facet_pairs : Tensor (P, 2)
        The pairs i < j with a proved facet, ascending.
    facet_centre : Tensor (P, d), float64
        A point of each facet: on the tie up to rounding, every other logit strictly below, strictly
        inside the domain.
    chebyshev_centre : Tensor (K, d), float64
        Centre of a ball of the region; NaN where the region is not proved to be non-empty.
    chebyshev_radius : Tensor (K,), float64
        Its radius, faces of the domain included; +inf where balls of any size fit (the centre is
        then any interior point), NaN where not `nonempty`.
    chebyshev_upper : Tensor (K,), float64
        No ball of the region is larger; not above 0 where the region is proved to be empty or flat.
    bounded : Tensor (K,), bool
        The region is non-empty and bounded, proved by its recession cone.
    redundant : Tensor (K, K), bool
        Row i, column k: the region of i is the same without the constraint of k, proved.
    weight_angle : Tensor (K, K), float64
        Radians between w_i and w_j, both less the mean row; NaN where one equals the mean.
    region_status : Tensor (K,)
        CONVERGED (non-empty, the bounds of the radius meet), UNBOUNDED (balls of any size fit),
        INFEASIBLE (no interior, proved), INACCURATE (non-empty, the bounds are apart) or UNDECIDED.
    bounded_status : Tensor (K,)
        CONVERGED (bounded), UNBOUNDED (not bounded), both proved; INFEASIBLE (no interior) or
        UNDECIDED.
    status : Tensor (K, K)
        CONVERGED (facet, the bounds of its radius meet), UNBOUNDED (facet, balls of any size fit),
        INFEASIBLE (no facet, proved), DUPLICATE (equal weights and biases; the diagonal),
        INACCURATE (facet, but the bounds of its radius are apart, as where a point proved it and no
        linear program was run) or UNDECIDED (neither a facet nor its absence is proved).
    witnessed : Tensor (K, K), bool
        A point proved the facet before any linear program of the pair.
    num_programs : int
        Linear programs solved for this answer, those from a resumed file included.
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

    @property
    def share_witnessed(self) -> float:
        """Share of the pairs of classes whose facet a witness proved."""
        return self._share(self.witnessed)

    @property
    def share_undecided(self) -> float:
        """Share of the pairs of classes of which is not known whether they have a facet."""
        return self._share(self.status == Status.UNDECIDED)

    def neighbours(self, i: int) -> Int[Tensor, " N"]:
        """Return the classes that share a proved facet with class `i`, widest facet first."""
        count = int(self.adjacency[i].sum())
        width = torch.where(self.adjacency[i], self.facet_radius[i], -torch.inf)
        return width.argsort(descending=True, stable=True)[:count]

    def thinnest(self, n: int) -> Int[Tensor, "N 2"]:
        """Return the at most `n` pairs with a proved facet whose radius is smallest, ascending.

        A radius that a witness alone proved may be far below the true one: ask for the pair in
        ``partition(..., pairs=...)`` where that matters.
        """
        i, j = self.facet_pairs.unbind(dim=1)
        return self.facet_pairs[self.facet_radius[i, j].argsort(stable=True)[:n]]

    def narrowest(self, n: int) -> Int[Tensor, " N"]:
        """Return the at most `n` proved regions with the smallest Chebyshev radius, ascending."""
        radius = torch.where(self.nonempty, self.chebyshev_radius, torch.inf)
        order = radius.argsort(stable=True)
        return order[self.nonempty[order]][:n]

    def _share(self, table: Tensor) -> float:
        k = len(table)
        return float(table.triu(1).sum()) / (k * (k - 1) / 2)

    def take(self, index: Tensor | slice | list[int]) -> Self:
        """Return the tables of the classes at `index`, each once; `facet_pairs` count among them.

        Nothing is computed anew: facets and regions stay those among all classes.
        """
        kept = torch.arange(len(self.nonempty), device=self.nonempty.device)[index]
        place = torch.full_like(self.nonempty, -1, dtype=torch.int64)
        place[kept] = torch.arange(len(kept), device=kept.device)
        pairs = place[self.facet_pairs]
        inside = (pairs >= 0).all(dim=1)
        values = self._values()
        for name, value in values.items():
            if name in ("facet_pairs", "num_programs"):
                continue
            if name == "facet_centre":
                values[name] = value[inside]
            elif value.ndim == 2 and name != "chebyshev_centre":
                values[name] = value[kept][:, kept]
            else:
                values[name] = value[kept]
        pairs = pairs[inside].sort(dim=1).values
        order = (pairs[:, 0] * len(kept) + pairs[:, 1]).argsort()
        values["facet_pairs"] = pairs[order]
        values["facet_centre"] = values["facet_centre"][order]
        return type(self)(**values)
