"""Norms of pairwise normals w_i - w_k."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.lengths import lengths

_norms: weakref.WeakKeyDictionary[LinearHead, dict[float, Tensor]] = weakref.WeakKeyDictionary()


def pair_norms(head: LinearHead, p: float = 2.0) -> Tensor:
    """Return |w_i - w_k|_p for all pairs, (K,K), float64; kept per head. p is 1 or 2.

    The differences are formed explicitly: the expansion by a matrix product would lose all
    digits of nearly equal rows. 0 stands for equal rows and nothing else.
    """
    kept = _norms.setdefault(head, {})
    if p not in kept:
        w = head.weight
        norms = torch.cdist(w, w, p=p, compute_mode="donot_use_mm_for_euclid_dist")
        if p == 2.0:
            # squares may have underflowed or overflowed
            strange = ~((norms > 1e-140) & (norms < 1e150)).fill_diagonal_(True)
            for i in strange.any(dim=1).nonzero()[:, 0].tolist():
                norms[i, strange[i]] = lengths(w[i] - w[strange[i]])
        kept[p] = norms
    return kept[p]
