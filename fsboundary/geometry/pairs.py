"""Norms of pairwise normals w_i - w_k."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from fsboundary.head import LinearHead

_norms: weakref.WeakKeyDictionary[LinearHead, dict[float, Tensor]] = weakref.WeakKeyDictionary()


def pair_norms(head: LinearHead, p: float = 2.0) -> Tensor:
    """Return |w_i - w_k|_p for all pairs, (K,K), float64; kept per head.

    The differences are formed explicitly: the expansion by a matrix product would lose all
    digits of nearly equal rows.
    """
    kept = _norms.setdefault(head, {})
    if p not in kept:
        exact = "donot_use_mm_for_euclid_dist"
        kept[p] = torch.cdist(head.weight, head.weight, p=p, compute_mode=exact)
    return kept[p]
