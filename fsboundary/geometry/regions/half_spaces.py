"""How deep points lie in the polyhedron of their class, the domain left out.

The distance of a point of class i to the half-space where class k is above,
``((w_i - w_k).z + b_i - b_k) / |w_i - w_k|``, is linear in z, so its minimum over a hull is its
minimum over the generators. Flip distances in a domain are convex in z instead and would not do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.flips.nearest import margin_bounds
from fsboundary.geometry.lengths import TINY, lengths


def depths(head: LinearHead, z: Tensor, source: Tensor) -> Tensor:
    """Return a lower bound (B,) of the distance to where another class is not below.

    0 where rounding hides on which side of a tie the row lies; +inf where the weights of all
    other classes equal the source's and their biases are lower.

    Parameters
    ----------
    head : LinearHead
    z : Tensor (B, d), float64
    source : Tensor (B,)
    """
    found = [z.new_zeros(0)]
    for part in chunks(len(z), chunk_rows(max(head.num_features, head.num_classes))):
        lowered = margin_bounds(head, z[part], source[part], 2.0, keeps=True)[1].amin(dim=1)
        # where all weights agree the bound does not look at z
        finite = torch.isfinite(z[part]).all(dim=1)
        found.append(torch.where(finite, lowered, 0.0))
    return torch.cat(found)


def hull_distance_bound(generators: Tensor, weights: Tensor, z: Tensor) -> Tensor:
    """Return an upper bound (B,) of the distance to the hull, from a combination of generators.

    With a = the weights divided by their exact sum s, the point Σ a_i v_i is in the hull. What is
    computed differs from it by at most |1 - s| R for the division and γ (s R) for the sum, with R
    the largest norm of a generator that carries weight; the subtraction and the length are off by
    γ times the result. Terms of γ: S + d + 16.

    Parameters
    ----------
    generators : Tensor (B, S, d), float64
    weights : Tensor (B, S), float64
        Not negative; +inf is returned where all are 0.
    z : Tensor (B, d), float64
    """
    gamma = dot_error(weights.shape[1] + z.shape[1] + 16)
    used = weights > 0
    total = weights.sum(dim=1)
    largest = torch.where(used, lengths(generators), 0.0).amax(dim=1)
    distance = lengths(z - (weights[:, None] @ generators)[:, 0])
    # the sum itself is rounded too
    unit = (1 - total).abs() + gamma * (1 + total)
    bound = (distance + (unit + gamma * total) * largest + TINY) * (1 + gamma + 4 * EPS)
    return torch.where(used.any(dim=1), bound, torch.inf).nan_to_num(
        nan=torch.inf, posinf=torch.inf
    )
