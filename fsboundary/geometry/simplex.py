"""The point of smallest norm in the hull of few points, for many rows at once.

min ½|Σ a_s y_s|² over the simplex. With G the Gram matrix and σ > 0, the affine minimiser on a
passive set P is x / Σx with (G + σ 11ᵀ)_PP x = 1 (Wolfe, "Finding the nearest point in a polytope",
Math. Programming 11 (1976)). P is found by block principal pivoting: every weight below zero
leaves and every point that would lower the norm enters, all at once; where that stops making
progress, only the last such index is exchanged (Murty's rule, which is finite). See Kim and Park,
"Fast nonnegative matrix factorization", SIAM J. Sci. Comput. 33 (2011), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.tolerance import EPS

_RIDGE = 1e-13
"""Added to the diagonal relative to the largest Gram entry: keeps affinely dependent points
solvable. Its effect is undone by one step of iterative refinement and seen by the certificate."""

_PATIENCE = 3
"""Full exchanges in a row that may fail to lower the number of wrong indices."""

_MAX_PIVOTS = 200
"""Exchanges a row may take. Murty's rule could need more in theory; a row that does keeps its
best weights, which are feasible, and the caller's certificate judges them."""


def min_norm_weights(points: Tensor, valid: Tensor, start: Tensor) -> Tensor:
    """Return simplex weights (P,S) of the point of least norm in each row's hull.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
        Rows y_s = v_s - q. Entries that are not valid are ignored.
    valid : Tensor (P, S), bool
        At least one a row.
    start : Tensor (P, S), bool
        First guess of the points that carry weight; at least one valid a row.
    """
    gram = points @ points.mT
    size = torch.where(valid, gram.diagonal(dim1=1, dim2=2), 0.0).amax(dim=1, keepdim=True)
    size = size.clamp_min(torch.finfo(points.dtype).tiny)
    passive, inside = start & valid, valid
    weights = torch.zeros_like(valid, dtype=points.dtype)
    rows = torch.arange(len(points), device=points.device)
    fewest = torch.full_like(rows, torch.iinfo(rows.dtype).max)
    left = torch.full_like(rows, _PATIENCE)
    for _ in range(_MAX_PIVOTS):
        affine = _affine_minimiser(gram, passive, size)
        slope = (gram @ affine[..., None])[..., 0]
        norm = torch.linalg.vecdot(slope, affine)[:, None]
        # |p|² and slopes below this differ by rounding only
        noise = 64 * EPS * (size + norm.abs())
        wrong = (passive & (affine < 0)) | (inside & ~passive & (slope < norm - noise))
        weights[rows] = affine.clamp_min(0.0)
        count = wrong.sum(dim=1)
        go = count > 0
        if not bool(go.all()):
            rows, wrong, count, passive = rows[go], wrong[go], count[go], passive[go]
            gram, size, inside = gram[go], size[go], inside[go]
            fewest, left = fewest[go], left[go]
        if len(rows) == 0:
            break
        fewer = count < fewest
        fewest = torch.where(fewer, count, fewest)
        left = torch.where(fewer, _PATIENCE, left - 1)
        last = wrong & (wrong.flip(1).cumsum(dim=1).flip(1) == 1)
        change = torch.where((left >= 0)[:, None], wrong, last)
        passive = passive ^ _keep_one(passive, change)
    return weights / weights.sum(dim=1, keepdim=True)


def _keep_one(passive: Tensor, change: Tensor) -> Tensor:
    """Return `change` without the removal that would leave a row with no point at all."""
    empties = ~(passive ^ change).any(dim=1)
    first = passive & (passive.cumsum(dim=1) == 1)
    return change & ~(empties[:, None] & first)


def _affine_minimiser(gram: Tensor, passive: Tensor, size: Tensor) -> Tensor:
    """Return weights (P,S), summing to 1, of the least-norm point of the affine hull of P."""
    width = int(passive.sum(dim=1).amax())
    slots = passive.to(torch.uint8).topk(width, dim=1).indices
    used = passive.gather(1, slots)
    full = gram.shape[1]
    index = (slots[:, :, None] * full + slots[:, None, :]).flatten(1)
    system = gram.flatten(1).gather(1, index).view(-1, width, width) + size[..., None]
    # padded slots: a unit row and column
    if not bool(used.all()):
        system = torch.where(used[:, :, None] & used[:, None, :], system, 0.0)
    loaded = system.clone()
    loaded.diagonal(dim1=1, dim2=2).add_(torch.where(used, _RIDGE * size, 1.0))
    right = used.to(gram.dtype)[..., None]
    factor, info = torch.linalg.cholesky_ex(loaded)
    x = torch.cholesky_solve(right, factor)
    # one step of refinement against the matrix without its ridge
    x = x + torch.cholesky_solve(right - system @ x, factor)
    x = torch.where(used, x[..., 0], 0.0)
    total = x.sum(dim=1, keepdim=True)
    uniform = right[..., 0] / right.sum(dim=1)
    usable = (info == 0)[:, None] & (total > 0) & torch.isfinite(total)
    affine = torch.where(usable, x / total, uniform)
    return torch.zeros_like(passive, dtype=gram.dtype).scatter_(1, slots, affine)


def affinely_independent(points: Tensor, weights: Tensor) -> Tensor:
    """Return weights of the same point (P,S) with at most d + 1 of them above zero.

    Carathéodory's reduction: while the points that carry weight are affinely dependent, move
    along a dependency until a weight vanishes.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
    weights : Tensor (P, S), float64, on the simplex
    """
    out = weights.clone()
    width = points.shape[2] + 1
    for row in ((weights > 0).sum(dim=1) > width).nonzero()[:, 0].tolist():
        while True:
            used = (out[row] > 0).nonzero()[:, 0]
            if len(used) <= width:
                break
            lifted = torch.cat([points[row, used].T, points.new_ones(1, len(used))])
            direction = torch.linalg.svd(lifted)[2][-1]
            direction = direction if bool((direction > 0).any()) else -direction
            ratio = torch.where(direction > 0, out[row, used] / direction, torch.inf)
            step, drop = ratio.min(dim=0)
            out[row, used] = (out[row, used] - step * direction).clamp_min(0.0)
            out[row, used[drop]] = 0.0
    return out / out.sum(dim=1, keepdim=True)
