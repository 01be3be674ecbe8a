"""Generators of a guaranteed hull, moved towards the border of their region."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.regions.guaranteed_sets import depths


def check_enlarging(share: float, limit: float) -> None:
    """Raise ArgumentError unless both numbers are in their range."""
    if not 0 <= share < 1:
        raise ArgumentError("share", str(share), "a number in [0, 1)", "pass 0.9, say")
    if not 1 <= limit < math.inf:
        raise ArgumentError("limit", str(limit), "a finite number, at least 1", "pass 10, say")


def enlarge(
    head: LinearHead, source: int, bank: FeatureBank, share: float, limit: float
) -> tuple[FeatureBank, Tensor]:
    """Return the moved generators and their clearance, ().

    A generator v goes to ``c + t (v - c)`` with c the mean, which is in the region for it is
    convex. At the border t is T, the smallest root of the K - 1 margins, which are linear in t;
    here t = 1 + share (T - 1). A margin that is not negative at T is at least (1 - share) times
    its value at v. Whatever rounding does on the way, every moved generator is measured again as
    it is stored, and one that has lost more than half of what it should have left stays at v.

    Parameters
    ----------
    head : LinearHead
    source : int
        The class whose generators `bank` holds.
    bank : FeatureBank
    share, limit : float
        As checked by :func:`check_enlarging`.
    """
    step = chunk_rows(bank.num_features, 4096)
    rows = [torch.arange(p.start, p.stop) for p in chunks(len(bank), step)]
    total = torch.zeros_like(head.weight[0])
    for index in rows:
        total += bank.take(index).to(total.device).sum(dim=0)
    centre = total / len(bank)
    at_centre = _margins(head, source, centre[None])
    moved, depth = [], []
    for index in rows:
        v = bank.take(index).to(centre.device)
        fall = at_centre - _margins(head, source, v)
        root = torch.where(fall > 0, at_centre / fall, torch.inf).amin(dim=1)
        factor = 1 + share * (root.clamp(1.0, limit) - 1)
        end = centre + factor[:, None] * (v - centre)
        # rows that were float32 stay so: half the memory, and the same speed as before
        if torch.equal(v.to(torch.float32).to(v.dtype), v):
            end = end.to(torch.float32).to(v.dtype)
        own = torch.full_like(index, source, device=v.device)
        before, after = depths(head, v, own), depths(head, end, own)
        stays = ~(after >= (1 - share) / 2 * before)
        moved.append(torch.where(stays[:, None], v, end))
        depth.append(torch.where(stays, before, after))
    points = torch.cat(moved)
    narrow = points.to(torch.float32)
    kept = narrow if torch.equal(narrow.to(points.dtype), points) else points
    return FeatureBank(kept), torch.cat(depth).min()


def _margins(head: LinearHead, source: int, z: Tensor) -> Tensor:
    """Return ``(w_i - w_k).z + b_i - b_k`` for all k, (B,K), from explicit differences."""
    normal = head.weight[source] - head.weight
    return z @ normal.T + (head.bias[source] - head.bias)
