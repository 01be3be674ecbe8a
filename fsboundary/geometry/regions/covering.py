"""Which points lie in at least one of many balls.

A float32 matrix product rules out nearly all pairs of a point and a ball, by a bound of its
rounding; float64 distances, raised by theirs, decide the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.tolerance import EPS
from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.geometry.lengths import lengths

_SINGLE = torch.finfo(torch.float32)
_PAIRS = 2**20
"""Pairs looked at in one go."""


def first_cover(centres: Tensor, radius: Tensor, z: Tensor) -> Tensor:
    """Return a ball (B,) in which each point certainly lies, -1 where there is none.

    Which one of several is left open.

    Parameters
    ----------
    centres : Tensor (n, d), float64, finite
    radius : Tensor (n,), float64
        Of open balls; may be +inf.
    z : Tensor (B, d), float64, finite
    """
    cover = torch.full((len(z),), -1, dtype=torch.int64, device=z.device)
    if not len(centres) or not len(z):
        return cover
    # about the mean, and of size one, float32 loses least
    middle = z.mean(dim=0)
    a, b = z - middle, centres - middle
    scale = torch.maximum(a.abs().amax(), b.abs().amax())
    scale = torch.where(scale > 0, scale, 1.0)
    a, b, r = a / scale, b / scale, radius / scale
    for part in chunks(len(z), max(1, _PAIRS // len(centres))):
        value, doubt = _rough(a[part], b, r)
        # NaN, where something overflowed, rules nothing out
        maybe = ~(value > doubt)
        best = torch.where(maybe, value.nan_to_num(nan=0.0), torch.inf).argmin(dim=1)
        fits = maybe.any(dim=1) & _inside(z[part], centres[best], radius[best])
        cover[part] = torch.where(fits, best, -1)
        rows, balls = (maybe & ~fits[:, None]).nonzero(as_tuple=True)
        for pairs in chunks(len(rows), chunk_rows(z.shape[1])):
            row, ball = rows[pairs], balls[pairs]
            good = _inside(z[part][row], centres[ball], radius[ball])
            cover[part.start + row[good]] = ball[good]
    return cover


def _rough(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``|a - b|² - r²`` (B,n) and a bound of its error, for entries of at most 1.

    Twice the γ of a float32 product with both factors rounded also covers the float64 sums. What
    underflows in the product is below the smallest normal number a term.
    """
    width = a.shape[1]
    product = (a.to(torch.float32) @ b.to(torch.float32).T).to(torch.float64)
    size_a, size_b = lengths(a), lengths(b)
    value = size_a.square()[:, None] + (size_b.square() - r.square()) - 2 * product
    unit = (width + 16) * _SINGLE.eps
    return value, unit * (size_a[:, None] + size_b).square() + 4 * width * _SINGLE.tiny


def _inside(z: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """Whether each row of `z` is certainly nearer than its radius to its centre, (P,)."""
    return lengths(z - centres) * (1 + (z.shape[1] + 8) * EPS) < radius
