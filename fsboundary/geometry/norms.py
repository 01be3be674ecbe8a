"""Euclidean norms over the whole range of float64, and norms of pairwise normals w_i - w_k.

The sum of squares underflows to 0 for entries below 1e-162 and overflows above 1e154. A norm of
0 for a row that is not zero would make two classes "equal" and their boundary "unreachable", so
every norm behind a certificate is computed here.
"""

from __future__ import annotations

import weakref

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fsboundary.core.heads import LinearHead

TINY = torch.finfo(torch.float64).tiny
"""The smallest normal number. ``dot_error(n) * TINY`` bounds what n products lose by underflow,
half of the smallest subnormal number each."""

_SMALL, _LARGE = 1e-140, 1e150
"""Between these, no square of a relevant entry has underflowed and no sum has overflowed."""


def lengths(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Return the Euclidean length (...) of each row of `x` (..., d), float64.

    Exact up to rounding for any finite entries; +inf where the length itself is above the largest
    number or an entry is infinite.
    """
    plain: Tensor = torch.linalg.vector_norm(x, dim=-1)
    strange = ~((plain > _SMALL) & (plain < _LARGE))
    if bool(strange.any()):
        part = x[strange]
        largest = part.abs().amax(dim=-1)
        scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
        plain[strange] = scale * torch.linalg.vector_norm(part / scale[..., None], dim=-1)
    return plain


_norms: weakref.WeakKeyDictionary[LinearHead, dict[float, Tensor]] = weakref.WeakKeyDictionary()


def pair_norms(head: LinearHead, p: float = 2.0) -> Float64[Tensor, "K K"]:
    """Return |w_i - w_k|_p for all pairs, (K,K), float64; cached per head. p is 1 or 2.

    The differences are formed explicitly: the expansion by a matrix product would lose all
    digits of nearly equal rows. 0 means equal rows and nothing else.
    """
    cached = _norms.setdefault(head, {})
    if p not in cached:
        w = head._weight
        norms = w.new_zeros(len(w), len(w))
        i, k = torch.triu_indices(len(w), len(w), 1, device=w.device)
        # of each pair once, and seven times as fast for each as torch.cdist without its expansion
        norms[i, k] = norms[k, i] = torch.pdist(w, p=p)
        if p == 2.0:
            # squares may have underflowed or overflowed
            strange = ~((norms > 1e-140) & (norms < 1e150)).fill_diagonal_(True)
            for i in strange.any(dim=1).nonzero()[:, 0].tolist():
                norms[i, strange[i]] = lengths(w[i] - w[strange[i]])
        cached[p] = norms
    return cached[p]
