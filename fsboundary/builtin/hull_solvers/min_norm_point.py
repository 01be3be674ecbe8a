"""Nearest points of hulls of few points: nonnegative least squares, and batched pivoting.

:func:`simplex_weights` solves one row by nonnegative least squares. With y_i = v_i - q, the x >= 0
that minimises |Σ x_i y_i|² + s² (Σ x_i - 1)² is t a with t > 0 and a the weights of the hull's
nearest point, for any s > 0 (Wolfe, "Finding the nearest point in a polytope", Math. Programming 11
(1976)).

:func:`min_norm_weights` solves many rows at once: min ½|Σ a_s y_s|² over the simplex. With G the
Gram matrix and σ > 0, the affine minimiser on a passive set P is x / Σx with (G + σ 11ᵀ)_PP x = 1
(Wolfe 1976). P is found by block principal pivoting: every weight below zero leaves and every point
that would lower the norm enters, all at once; if that stops making progress, only the last such
index is exchanged (Murty's rule, which is finite). See Kim and Park, "Fast nonnegative matrix
factorization", SIAM J. Sci. Comput. 33 (2011), section 4.
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

    At most d + 1 are above zero; all are zero where scipy's routine failed.
    """
    count, d = points.shape
    lifted = np.ones((d + 1, count))
    np.subtract(points.T, query[:, None], out=lifted[:d])
    # the ones must neither vanish beside the coordinates nor dominate them
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
solvable. Where its effect is visible, one step of iterative refinement undoes it; the certificate
covers the rest."""

_NO_REFINEMENT = 1e-4
"""Rows whose squared norm is above this fraction of the largest Gram entry need no refinement: the
ridge changes it by at most 1e-9 of itself."""

_PATIENCE = 3
"""Consecutive full exchanges that may fail to lower the number of wrong indices."""

_CROWDED = 0.7
"""Finished rows are dropped when fewer than this fraction is left."""

_MAX_PIVOTS = 60
"""Largest number of exchanges of a row. On affinely dependent points they can cycle; a row that
takes more is solved separately."""


def min_norm_weights(points: Tensor, valid: Tensor, start: Tensor) -> Tensor:
    """Return simplex weights (P,S) of the point of least norm in each row's hull.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
        Rows y_s = v_s - q. Entries that are not valid are ignored.
    valid : Tensor (P, S), bool
        Mask, with at least one point per row.
    start : Tensor (P, S), bool
        First guess of the points that carry weight; at least one valid point per row.
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
        # finished rows do not change: they stay until dropping them pays for the copy
        if len(stuck) < _CROWDED * len(go):
            rows, wrong, count, passive = stuck, wrong[go], count[go], passive[go]
            gram, size, inside = gram[go], size[go], inside[go]
            fewest, left = fewest[go], left[go]
        fewer = count < fewest
        fewest = torch.where(fewer, count, fewest)
        left = torch.where(fewer, _PATIENCE, left - 1)
        last = wrong & (wrong.flip(1).cumsum(dim=1).flip(1) == 1)
        change = torch.where((left >= 0)[:, None], wrong, last)
        passive = passive ^ _keep_nonempty(passive, change)
    for row in stuck.tolist():
        # Lawson and Hanson's method handles dependent columns
        used = points[row, valid[row]].cpu().numpy()
        solution = torch.from_numpy(simplex_weights(used, np.zeros(used.shape[1]))).to(weights)
        if bool(solution.any()):
            weights[row] = 0.0
            weights[row, valid[row]] = solution
    return weights / weights.sum(dim=1, keepdim=True)


def _keep_nonempty(passive: Tensor, change: Tensor) -> Tensor:
    """Return `change` without a removal that would leave a row without any point."""
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
    # the square of the norm is 1 / Σx - size: where it is small, the ridge is visible
    small = x.sum(dim=1) * size * (1 + _NO_REFINEMENT) > 1
    again = small[:, 0].nonzero()[:, 0]
    if len(again):
        # one step of refinement with the matrix without its ridge
        partial, ridge_part = x[again], ridge[again, :, None]
        residual = right[again] - system[again] @ partial + ridge_part * partial
        x[again] = partial + torch.cholesky_solve(residual, factor[again])
    x = torch.where(passive, x[..., 0], 0.0)
    total = x.sum(dim=1, keepdim=True)
    usable = (info == 0)[:, None] & (total > 0) & torch.isfinite(total)
    uniform = right[..., 0] / right.sum(dim=1)
    affine: Tensor = torch.where(usable, x / total, uniform)
    return affine


ROUNDED_ZERO = 1e-14
"""Residual, relative to the largest coordinate of generator minus query, that may be rounding."""


def few_points_weights(points: Tensor, valid: Tensor) -> Tensor:
    """Return simplex weights (P,S) of affinely independent points: those of the least-norm point.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
        Rows v - q, 0 where not valid.
    valid : Tensor (P, S), bool
        Mask, with at least one point per row.
    """
    weights = min_norm_weights(points, valid, valid)
    residual = torch.linalg.vector_norm((weights[:, None] @ points)[:, 0], dim=1)
    outside = residual > ROUNDED_ZERO * points.abs().amax(dim=(1, 2))
    return reduce_support(points, weights, outside)


def reduce_support(points: Tensor, weights: Tensor, outside: Tensor) -> Tensor:
    """Return weights (P,S) of at most d + 1 affinely independent points, d where `outside`.

    Carathéodory's reduction: while the points that carry weight are affinely dependent, move
    along a dependency until a weight vanishes. Where d + 1 independent points are left around a
    projection that lies outside, the line from it to the origin leaves them by a face; if it does
    not leave them, the origin is inside after all, and they stay.

    Parameters
    ----------
    points : Tensor (P, S, d), float64
        Rows v - q.
    weights : Tensor (P, S), float64, on the simplex
    outside : Tensor (P,), bool
        Whether the origin may be outside the hull.
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
            towards_origin = len(used) == d + 1 and bool(values[-1] > 1e-10 * values[0])
            if towards_origin:
                toward = lifted @ out[row, used]
                toward[-1] = 0.0
                direction = torch.linalg.solve(lifted, toward)
            direction = direction if bool((direction > 0).any()) else -direction
            ratio = torch.where(direction > 0, out[row, used] / direction, torch.inf)
            step, drop = ratio.min(dim=0)
            if towards_origin and step >= 1:
                break
            out[row, used] = (out[row, used] - step * direction).clamp_min(0.0)
            out[row, used[drop]] = 0.0
    return out / out.sum(dim=1, keepdim=True)
