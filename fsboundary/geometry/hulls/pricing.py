"""Exact pricing: the best generator of a direction, mostly at the cost of a float32 pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.geometry.hulls.point_sets import gather_rows, rowwise_dots

CANDIDATES = 8
"""Generators per row that the float32 pass keeps, to be priced again in float64."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priced:
    """The smallest products of B directions with all generators.

    Attributes
    ----------
    best : Tensor (B,), float64
        Smallest product over all generators that count.
    indices : Tensor (B, C)
        Candidates other than the known ones, ascending by value; -1 as padding.
    values : Tensor (B, C), float64
        Products of the candidates; +inf as padding.
    rows : Tensor (U,)
        Every generator among `indices`, ascending, and perhaps others.
    points : Tensor (U, d), float64
        The generators `rows`.
    """

    best: Float64[Tensor, " B"]
    indices: Int[Tensor, "B C"]
    values: Float64[Tensor, "B C"]
    rows: Int[Tensor, " U"]
    points: Float64[Tensor, "U d"]


def price_exact(
    points: PointSet,
    directions: Float64[Tensor, "B d"],
    largest: Float64[Tensor, ""],
    exclude: Int[Tensor, "B E"] | None = None,
    known: Int[Tensor, "B S"] | None = None,
    *,
    candidates: int = CANDIDATES,
) -> Priced:
    """Return the smallest product of each direction with a generator, over all generators.

    A float32 pass keeps a few candidates; they are priced again in float64. Every other
    generator's float32 value is at least the last candidate's, so its exact value is at least
    that less the rounding: where the best candidate is below, it is the best of all. The other
    rows, and those with a candidate whose two values differ by more than the rounding, are priced
    entirely in float64.

    Parameters
    ----------
    points : PointSet
        The n generators.
    directions : Tensor (B, d), float64
        Directions of any length.
    largest : Tensor (), float64
        The largest norm of a generator. The result is exact only if this is no less.
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    known : Tensor (B, S), optional
        Generators that tie for the best, such as those that support a projection, -1 as padding:
        the pass leaves them out, because otherwise no candidate would stand apart. They count in
        `best`.
    candidates : int
        Upper limit of C.
    """
    skip = exclude if known is None else known
    if exclude is not None and known is not None:
        skip = torch.cat([exclude, known], dim=1)
    count = min(candidates, len(points))
    rough, indices = points.price(directions.to(torch.float32), count, skip)
    wanted = indices if known is None else torch.cat([indices, known], dim=1)
    rows, generators = gather_rows(points, wanted)
    dots = rowwise_dots(directions, rows, generators, indices)
    values, order = dots.sort(dim=1, stable=True)
    candidate, indices = indices >= 0, indices.gather(1, order)
    best = values[:, 0]
    if known is not None:
        of_known = rowwise_dots(directions, rows, generators, known).amin(dim=1)
        best = torch.minimum(best, of_known)
    # gamma_n of float32 (Higham, section 3.1), with a rounding of each of the two factors
    single = torch.finfo(torch.float32)
    unit = (directions.shape[1] + 3) * single.eps / 2
    size = torch.linalg.vector_norm(directions, dim=1)
    # what underflow loses of a term, also where subnormal factors, products and sums become zero
    lost = 2 * directions.shape[1] * single.tiny * (1 + size + largest)
    doubt = unit / (1 - unit) * size * largest + lost
    # numbers or products that may overflow in single precision prove nothing
    fits = size.clamp_min(1.0) * largest.clamp_min(1.0) < single.max / 4
    # the last candidate is +inf where there are no other generators
    rough = rough.to(torch.float64)
    sure = fits & (best <= rough[:, -1] - doubt)
    # a product that is farther off than it can be was not rounded as assumed
    sure &= ~(candidate & ((rough - dots).abs() > doubt[:, None])).any(dim=1)
    unsure = (~sure).nonzero()[:, 0]
    if len(unsure):
        rest = None if skip is None else skip[unsure]
        exact, indices[unsure] = points.price(directions[unsure], count, rest)
        values[unsure] = exact.to(torch.float64)
        best[unsure] = torch.minimum(best[unsure], values[unsure, 0])
        rows, generators = gather_rows(points, indices)
    return Priced(best=best, indices=indices, values=values, rows=rows, points=generators)
