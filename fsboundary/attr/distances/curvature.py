"""Second derivatives of distances.

Near a row whose nearest point lies inside a face of the set, the distance f is that to the flat
that the face spans. With N the projector on the directions normal to the flat and u the unit
direction, the second derivative is ``(N - u uᵀ) / f``: 0 where one constraint holds the point.
It does not exist where the nearest point moves from one face to another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.norms import lengths, pair_norms

_TIED, _HELD = 1e-6, 1e-12
"""A class ties at a point, or a face of the domain holds it, that comes so near, as a share of the
size of row and point. Certified points miss ties by a hundredth of this, and are clipped to the
domain exactly."""


def bent(vectors: Tensor, normal_part: Tensor, unit: Tensor, value: Tensor) -> Tensor:
    """Return ``(N - u uᵀ) v / f``, (P,d); 0 where the value (P,) is 0 or infinite."""
    along = torch.linalg.vecdot(unit, vectors)[:, None]
    fine = torch.isfinite(value) & (value != 0)
    out = (normal_part - along * unit) / torch.where(fine, value, 1.0)[:, None]
    out = torch.where(fine[:, None], out, 0.0)
    return torch.where(torch.isnan(value)[:, None], torch.nan, out)


def boundary_normals(head: LinearHead, z: Tensor, points: Tensor, vectors: Tensor) -> Tensor:
    """Return the part of `vectors` (P,d) normal to the face of the boundary at `points` (P,d).

    The face is where the classes that tie at the point tie, within the domain's faces there.
    """
    size = (lengths(z) + lengths(points))[:, None]
    logits = head.logits(points)
    top, anchor = logits.max(dim=1, keepdim=True)
    tied = top - logits <= _TIED * size * pair_norms(head, 2.0)[anchor[:, 0]]
    low, high = head.domain.limits(points)
    held = (points - low <= _HELD * size) | (high - points <= _HELD * size)
    rows = torch.where(tied[..., None], head.weight - head.weight[anchor], 0.0)
    inside = torch.where(held, 0.0, vectors)
    return torch.where(held, vectors, spanned(torch.where(held[:, None], 0.0, rows), inside))


def spanned(rows: Tensor, vectors: Tensor) -> Tensor:
    """Return the projection of `vectors` (P,d) on the span of `rows` (P,S,d)."""
    # rows of unit length, so that short ones count as much as long ones
    size = lengths(rows)[..., None]
    rows = rows / torch.where(size > 0, size, 1.0)
    inverse = torch.linalg.pinv(rows @ rows.mT, hermitian=True, rtol=1e-10)
    weights = inverse @ (rows @ vectors[..., None])
    out: Tensor = (rows.mT @ weights)[..., 0]
    return out
