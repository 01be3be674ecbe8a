"""The Newton system of the dual, on the constraints that are active."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.chunks import chunks
from fsboundary.geometry.flips.dual import DualProblems
from fsboundary.geometry.pairs import pair_norms

_TABLE_CLASSES = 24
"""Up to this many classes, all products of two weight rows are tabled and one matrix product
makes every Hessian; above, rows are gathered for the active constraints alone."""

_TABLE_SPREAD = 1e-4
"""The table works with products of rows, not of their differences, so it loses digits where two
rows nearly agree. Below this relative distance of rows they are gathered instead."""

_GATHER_BYTES = 32 << 20
"""Cap on one array of gathered rows (P,S,d); longer batches are built piece by piece."""

_tables: weakref.WeakKeyDictionary[LinearHead, Tensor | None] = weakref.WeakKeyDictionary()


def solve_active(
    problems: DualProblems,
    points: Tensor,
    active: Tensor,
    values: Tensor,
    norms: Tensor,
    ridge: Tensor,
) -> Tensor:
    """Return the direction -(M_A diag(free) M_Aᵀ + ridge)⁻¹ (M z' + c)_A per slot, (P,K).

    The rows are scaled to unit norm first, so the ridge is relative.

    Parameters
    ----------
    points : Tensor (P, d)
        z' at the current multipliers.
    active : Tensor (P, K), bool
        The set A; slots with a zero row must not be in it.
    values, norms : Tensor (P, K)
        Constraint values and norms of the constraint rows.
    ridge : Tensor (P,)
        Added to the diagonal.
    """
    width = int(active.sum(dim=1).amax())
    slots = active.to(torch.uint8).topk(width, dim=1).indices
    valid = active.gather(1, slots)
    first, second = problems.row_classes(slots, valid)
    scale = torch.where(valid, norms.gather(1, slots), 1.0)
    system = _products(problems.head, points, first, second)
    system = system / (scale[:, :, None] * scale[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_((~valid).to(scale.dtype) + ridge[:, None])
    right = torch.where(valid, values.gather(1, slots) / scale, 0.0)
    if width == 1:
        answer = -right / system[:, 0]
    else:
        factor, info = torch.linalg.cholesky_ex(system)
        solved = torch.cholesky_solve(-right[..., None], factor)[..., 0]
        # not positive definite after rounding: a gradient step, and the next ridge is larger
        answer = torch.where((info == 0)[:, None], solved, -right)
    delta = torch.where(valid, answer / scale, 0.0)
    return torch.zeros_like(values).scatter_(1, slots, delta)


def _products(head: LinearHead, points: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return (P,S,S) inner products of the rows w_first - w_second over the free coordinates."""
    bounded = head.domain.kind != "unbounded"
    free = None
    if bounded:
        low, high = head.domain.limits(points)
        free = ((points > low) & (points < high)).to(points.dtype)
    table = _table(head)
    if table is None:
        return _gathered(head, free, first, second)
    k = head.num_classes
    # every coordinate is free without a domain: one Hessian for all rows
    everywhere = table.sum(dim=0).expand(len(points), k * k)
    grams = everywhere if free is None else free @ table
    f, s = first * k, second * k
    out = torch.zeros((*first.shape, first.shape[1]), dtype=points.dtype, device=points.device)
    for left, sign_left in ((f, 1.0), (s, -1.0)):
        for right, sign in ((first, sign_left), (second, -sign_left)):
            index = left[:, :, None] + right[:, None, :]
            out.add_(grams.gather(1, index.flatten(1)).view_as(out), alpha=sign)
    return out


def _gathered(head: LinearHead, free: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """Return the products from explicitly gathered rows, piece by piece."""
    count, slots = first.shape
    size = max(1, _GATHER_BYTES // (8 * slots * head.num_features))
    out = []
    for part in chunks(count, size):
        rows = head.weight[first[part]].sub_(head.weight[second[part]])
        scaled = rows if free is None else rows * free[part, None, :]
        out.append(scaled @ rows.mT)
    return torch.cat(out)


def _table(head: LinearHead) -> Tensor | None:
    """Return (d, K K) products of centred weight rows, or None where rows must be gathered."""
    if head not in _tables:
        centred = head.weight - head.weight.mean(dim=0)
        norms = pair_norms(head)
        between = norms[norms > 0]
        use = head.num_classes <= _TABLE_CLASSES and len(between) > 0
        if use and float(between.min()) >= _TABLE_SPREAD * float(between.max()):
            _tables[head] = torch.einsum("im,km->mik", centred, centred).flatten(1)
        else:
            _tables[head] = None
    return _tables[head]
