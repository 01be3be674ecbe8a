"""The exact best generator of a direction, mostly at the price of a float32 pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.protocols import PointSet

_CANDIDATES = 8
"""Generators that the float32 pass keeps for each row, to be priced again in float64."""


def price_exact(
    points: PointSet,
    directions: Tensor,
    largest: Tensor,
    exclude: Tensor | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest product of each direction with a generator, over all generators.

    A float32 pass keeps a few candidates; they are priced again in float64. Every other
    generator's float32 value is at least the last candidate's, so its exact value is at least
    that less the rounding: where the best candidate is below, it is the best of all. The other
    rows are priced in float64 throughout.

    Parameters
    ----------
    points : PointSet
    directions : Tensor (B, d), float64
    largest : Tensor (), float64
        The largest norm of a generator.
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    known : Tensor (B, S), optional
        Generators that tie for the best, as those that support a projection do, -1 as padding:
        the pass leaves them out, or no candidate would stand apart. They count in `best`.

    Returns
    -------
    best : Tensor (B,), float64
        Over all generators that count.
    indices : Tensor (B, C)
        Candidates other than `known`, ascending by value; -1 as padding.
    values : Tensor (B, C), float64
        Their products; +inf as padding.
    """
    skip = exclude if known is None else known
    if exclude is not None and known is not None:
        skip = torch.cat([exclude, known], dim=1)
    count = min(_CANDIDATES, len(points))
    rough, indices = points.price(directions.to(torch.float32), count, skip)
    values, order = _exact(points, directions, indices).sort(dim=1, stable=True)
    indices = indices.gather(1, order)
    best = values[:, 0]
    if known is not None:
        best = torch.minimum(best, _exact(points, directions, known).amin(dim=1))
    # gamma_n of float32 (Higham, section 3.1), with a rounding of each of the two factors
    unit = (directions.shape[1] + 3) * torch.finfo(torch.float32).eps / 2
    doubt = unit / (1 - unit) * torch.linalg.vector_norm(directions, dim=1) * largest
    doubt = doubt + directions.shape[1] * torch.finfo(torch.float32).tiny
    # the last candidate is +inf where there are no other generators
    sure = best <= rough.to(torch.float64)[:, -1] - doubt
    unsure = (~sure).nonzero()[:, 0]
    if len(unsure):
        rest = None if skip is None else skip[unsure]
        found, indices[unsure] = points.price(directions[unsure], count, rest)
        values[unsure] = found.to(torch.float64)
        best[unsure] = torch.minimum(best[unsure], values[unsure, 0])
    return best, indices, values


def _exact(points: PointSet, directions: Tensor, indices: Tensor) -> Tensor:
    """Return float64 products of each direction with its generators, +inf for index -1."""
    generators = points.take(indices.clamp_min(0)).to(torch.float64)
    values = (generators @ directions[..., None])[..., 0]
    return torch.where(indices >= 0, values, torch.inf)
