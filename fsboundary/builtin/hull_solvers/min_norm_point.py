"""The nearest point of the hull of few points, by nonnegative least squares.

With y_i = v_i - q, the x >= 0 that minimises |Σ x_i y_i|² + s² (Σ x_i - 1)² is t a with t > 0 and a
the weights of the hull's nearest point, whatever s > 0 is (Wolfe, "Finding the nearest point in a
polytope", Math. Programming 11 (1976)).

The point of smallest norm in the hull of few points, for many rows at once.

min ½|Σ a_s y_s|² over the simplex. With G the Gram matrix and σ > 0, the affine minimiser on a
passive set P is x / Σx with (G + σ 11ᵀ)_PP x = 1 (Wolfe, "Finding the nearest point in a polytope",
Math. Programming 11 (1976)). P is found by block principal pivoting: every weight below zero
leaves and every point that would lower the norm enters, all at once; where that stops making
progress, only the last such index is exchanged (Murty's rule, which is finite). See Kim and Park,
"Fast nonnegative matrix factorization", SIAM J. Sci. Comput. 33 (2011), section 4.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from fsboundary.core.tolerance import EPS

Array = NDArray[np.float64]


def simplex_weights(points: Array, query: Array) -> Array:
    """Return weights (n,) of the point of the hull of `points` (n,d) nearest to `query` (d,).

    At most d + 1 are above zero; all are zero where scipy's routine gave up.
    """
    count, d = points.shape
    lifted = np.ones((d + 1, count))
    np.subtract(points.T, query[:, None], out=lifted[:d])
    # the ones must be neither lost beside the coordinates nor drown them
    size = np.abs(lifted[:d]).max(initial=0.0)
    lifted[:d] /= size or 1.0
    right = np.zeros(d + 1)
    right[d] = 1.0
    try:
        weights, _ = optimize.nnls(lifted, right)
    except RuntimeError:  # its limit of iterations, three for each point
        return np.zeros(count)
    total = float(weights.sum())
    return np.asarray(weights / total) if total > 0 else np.zeros(count)


_RIDGE = 1e-13
"""Added to the diagonal relative to the largest Gram entry: keeps affinely dependent points
solvable. Where its effect shows, one step of iterative refinement undoes it; the certificate sees
the rest."""

_PLAIN = 1e-4
"""Rows whose squared norm is above this share of the largest Gram entry need no refinement: the
ridge changes it by 1e-9 of itself at most."""

_PATIENCE = 3
"""Full exchanges in a row that may fail to lower the number of wrong indices."""

_CROWDED = 0.7
"""Rows that are done are dropped where fewer than this share is left to do."""

_MAX_PIVOTS = 60
"""Exchanges a row may take. On affinely dependent points they can go round in circles; a row that
takes more is solved by itself."""


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
        stuck = rows[go]
        if len(stuck) == 0:
            return weights / weights.sum(dim=1, keepdim=True)
        # rows that are done do not change: they stay until dropping them pays for the copy
        if len(stuck) < _CROWDED * len(go):
            rows, wrong, count, passive = stuck, wrong[go], count[go], passive[go]
            gram, size, inside = gram[go], size[go], inside[go]
            fewest, left = fewest[go], left[go]
        fewer = count < fewest
        fewest = torch.where(fewer, count, fewest)
        left = torch.where(fewer, _PATIENCE, left - 1)
        last = wrong & (wrong.flip(1).cumsum(dim=1).flip(1) == 1)
        change = torch.where((left >= 0)[:, None], wrong, last)
        passive = passive ^ _keep_one(passive, change)
    for row in stuck.tolist():
        # Lawson and Hanson's method has its own remedy for dependent columns
        used = points[row, valid[row]].cpu().numpy()
        found = torch.from_numpy(simplex_weights(used, np.zeros(used.shape[1]))).to(weights)
        if bool(found.any()):
            weights[row] = 0.0
            weights[row, valid[row]] = found
    return weights / weights.sum(dim=1, keepdim=True)


def _keep_one(passive: Tensor, change: Tensor) -> Tensor:
    """Return `change` without the removal that would leave a row with no point at all."""
    empties = ~(passive ^ change).any(dim=1)
    first = passive & (passive.cumsum(dim=1) == 1)
    return change & ~(empties[:, None] & first)


def _affine_minimiser(gram: Tensor, passive: Tensor, size: Tensor) -> Tensor:
    """Return weights (P,S), summing to 1, of the least-norm point of the affine hull of P."""
    ridge = torch.where(passive, _RIDGE * size, 1.0)
    both = passive[:, :, None] & passive[:, None, :]
    # points that are not passive: a unit row and column
    system = torch.where(both, gram, -size[..., None]).add_(size[..., None])
    system.diagonal(dim1=1, dim2=2).add_(ridge)
    right = passive.to(gram.dtype)[..., None]
    factor, info = torch.linalg.cholesky_ex(system)
    x = torch.cholesky_solve(right, factor)
    # the square of the norm is 1 / Σx - size: where it is small, the ridge shows
    small = x.sum(dim=1) * size * (1 + _PLAIN) > 1
    again = small[:, 0].nonzero()[:, 0]
    if len(again):
        # one step of refinement against the matrix without its ridge
        some, own = x[again], ridge[again, :, None]
        lack = right[again] - system[again] @ some + own * some
        x[again] = some + torch.cholesky_solve(lack, factor[again])
    x = torch.where(passive, x[..., 0], 0.0)
    total = x.sum(dim=1, keepdim=True)
    usable = (info == 0)[:, None] & (total > 0) & torch.isfinite(total)
    uniform = right[..., 0] / right.sum(dim=1)
    affine: Tensor = torch.where(usable, x / total, uniform)
    return affine


def reduced(points: Tensor, weights: Tensor, outside: Tensor) -> Tensor:
    """Return weights (P,S) of at most d + 1 affinely independent points, d where `outside`.

    Carathéodory's reduction: while the points that carry weight are affinely dependent, move
    along a dependency until a weight vanishes. Where d + 1 independent points are left around a
    projection that lies outside, the line from it to the origin leaves them by a face.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
        Rows v - q.
    weights : Tensor (P, S), float64, on the simplex
    outside : Tensor (P,), bool
        Whether the origin is not in the hull.
    """
    out = weights.clone()
    d = points.shape[2]
    count = (weights > 0).sum(dim=1)
    for row in (count > torch.where(outside, d, d + 1)).nonzero()[:, 0].tolist():
        while True:
            used = (out[row] > 0).nonzero()[:, 0]
            if len(used) <= d + (not bool(outside[row])):
                break
            lifted = torch.cat([points[row, used].T, points.new_zeros(1, len(used))])
            size = lifted.abs().max().clamp_min(torch.finfo(lifted.dtype).tiny)
            lifted = lifted / size
            lifted[-1] = 1.0
            _, values, axes = torch.linalg.svd(lifted)
            direction = axes[-1]
            if len(used) == d + 1 and values[-1] > 1e-10 * values[0]:
                toward = lifted @ out[row, used]
                toward[-1] = 0.0
                direction = torch.linalg.solve(lifted, toward)
            direction = direction if bool((direction > 0).any()) else -direction
            ratio = torch.where(direction > 0, out[row, used] / direction, torch.inf)
            step, drop = ratio.min(dim=0)
            out[row, used] = (out[row, used] - step * direction).clamp_min(0.0)
            out[row, used[drop]] = 0.0
    return out / out.sum(dim=1, keepdim=True)
