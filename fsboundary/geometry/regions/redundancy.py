"""Open polyhedra: interior points, certificates of emptiness, and redundant constraints.

A polyhedron is the set of x with ``rows x + offset > 0`` and ``lower < x < upper``; where the two
limits of a feature agree, x has that value. A linear program proposes the largest ball in it, and
with its multipliers a sum of constraints that no point satisfies; both are checked in float64.

A constraint is needed if the set beyond it, where only this constraint is violated, has an
interior: a point there is the proof. It is redundant if that set is empty, which multipliers prove.
Rays from an interior point find most of the points: between the first plane that a ray crosses and
the second, only the first constraint is violated.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int
from scipy import sparse
from torch import Tensor

from fsboundary.geometry.linear_programs import solve_lp
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.certify import Polyhedron


def find_interior_point(
    polyhedron: Polyhedron, anchor: Float64[Tensor, " d"], unit: float
) -> Float64[Tensor, " d"] | bool:
    """Return an interior point (d,); False if the polyhedron is proved empty, True if undecided.

    Parameters
    ----------
    polyhedron : Polyhedron
    anchor : Tensor (d,)
        Origin of the linear program.
    unit : float
        Unit of length of the linear program.
    """
    ball = _largest_ball(polyhedron, anchor, unit)
    if ball is None:
        return True
    point, multipliers = ball
    if polyhedron.strictly_contains(point):
        return point
    return not polyhedron.certifies_empty(multipliers)


def _largest_ball(
    polyhedron: Polyhedron, anchor: Tensor, unit: float
) -> tuple[Tensor, Tensor] | None:
    """Return centre (d,) and multipliers (M,) of a largest ball, at most `unit` wide, by HiGHS.

    Where there is no interior the radius is negative: the distance by which all constraints must be
    moved.
    """
    free, count = polyhedron.free.numpy(), len(polyhedron.rows)
    start, rows, offset = anchor.numpy(), polyhedron.rows.numpy(), polyhedron.offset.numpy()
    norm = lengths(polyhedron.rows * polyhedron.free).numpy()
    norm = np.where(norm > 0, norm, np.where(offset != 0, abs(offset), 1.0))
    eye = sparse.identity(len(start), format="csr")[:, free]
    low, high = polyhedron.lower.numpy(), polyhedron.upper.numpy()
    lows, highs = np.isfinite(low) & free, np.isfinite(high) & free
    with np.errstate(over="ignore", invalid="ignore"):  # such programs are rejected
        slack = (rows @ start + offset) / norm
        rhs = np.concatenate([slack, (start - low)[lows], (high - start)[highs]]) / unit
        scaled = sparse.csr_array(rows[:, free] / norm[:, None])
    matrix = sparse.vstack([-scaled, -eye[lows], eye[highs]])
    width = matrix.shape[1]
    solution = solve_lp(
        np.append(np.zeros(width), -1.0),
        np.full(width + 1, -np.inf),
        np.append(np.full(width, np.inf), 1.0),
        ineq_matrix=sparse.csc_array(sparse.hstack([matrix, np.ones((len(rhs), 1))])),
        ineq_rhs=rhs,
    )
    if solution is None:
        return None
    point = np.where(free, start, low)
    with np.errstate(over="ignore"):  # infinite numbers prove nothing
        point[free] += unit * solution.x[:-1]
        multipliers = solution.ineq_duals[:count] / norm
    return torch.from_numpy(point), torch.from_numpy(multipliers)


NEEDED, REDUNDANT, OPEN = 1, -1, 0


def needed_constraints(
    polyhedron: Polyhedron, interior: Float64[Tensor, " d"]
) -> tuple[Int[Tensor, " N"], Float64[Tensor, "N d"]]:
    """Return a verdict (M + 2d,) per constraint and a point (M + 2d, d) that violates only it.

    First come the rows, then the lower limits, then the upper ones. OPEN: neither was proved.
    REDUNDANT also where there is no limit, or a feature that does not vary. NaN for no point.

    Parameters
    ----------
    polyhedron : Polyhedron
        Constraints, no two rows equal.
    interior : Tensor (d,)
        Point strictly inside.
    """
    lows, highs = (
        torch.isfinite(t) & polyhedron.free for t in (polyhedron.lower, polyhedron.upper)
    )
    remaining = torch.cat([torch.ones(len(polyhedron.rows), dtype=torch.bool), lows, highs])
    verdict = torch.where(remaining, OPEN, REDUNDANT)
    points = torch.full((len(remaining), len(interior)), torch.nan, dtype=torch.float64)
    eye = torch.eye(len(interior), dtype=torch.float64)
    planes = torch.cat([polyhedron.rows * polyhedron.free, eye[lows], -eye[highs]])
    limits = (interior - polyhedron.lower)[lows], (polyhedron.upper - interior)[highs]
    slack = torch.cat([polyhedron.rows @ interior + polyhedron.offset, *limits])
    indices = remaining.nonzero()[:, 0]
    if not len(indices):
        return verdict, points
    first, crossings = _first_crossings(planes, slack, interior)
    for plane, point in zip(first.tolist(), crossings, strict=True):
        s = int(indices[plane])
        if verdict[s] == OPEN and _other_side(polyhedron, remaining, s).strictly_contains(point):
            verdict[s], points[s] = NEEDED, point
    size = lengths(planes)
    # a row without free features has no plane, and any unit works
    depth = torch.where(size > 0, slack / size, 1.0)
    for plane in (verdict[indices] == OPEN).nonzero()[:, 0].tolist():
        s = int(indices[plane])
        result = find_interior_point(
            _other_side(polyhedron, remaining, s), interior, float(depth[plane])
        )
        if isinstance(result, Tensor):
            verdict[s], points[s] = NEEDED, result
        elif not result:
            # removed at once, so that one of two equivalent constraints stays
            verdict[s], remaining[s] = REDUNDANT, False
    return verdict, points


def _other_side(polyhedron: Polyhedron, remaining: Tensor, s: int) -> Polyhedron:
    """Return the polyhedron where constraint `s` is violated and the other remaining ones hold."""
    count, width = polyhedron.rows.shape
    rows, (lows, highs) = remaining[:count].clone(), remaining[count:].split(width)
    # a feature that does not vary keeps its value
    lower = torch.where(lows | ~polyhedron.free, polyhedron.lower, -torch.inf)
    upper = torch.where(highs | ~polyhedron.free, polyhedron.upper, torch.inf)
    sign = torch.ones_like(polyhedron.offset)
    side, m = divmod(s - count, width)
    if s < count:
        rows[s], sign[s] = True, -1.0
    elif side == 0:
        lower[m], upper[m] = -torch.inf, polyhedron.lower[m]
    else:
        lower[m], upper[m] = polyhedron.upper[m], torch.inf
    return Polyhedron(
        rows=(sign[:, None] * polyhedron.rows)[rows],
        offset=(sign * polyhedron.offset)[rows],
        lower=lower,
        upper=upper,
        exact=polyhedron.exact,
    )


def _first_crossings(planes: Tensor, slack: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return which plane each ray crosses first, and a point between it and the second.

    There is one ray per plane (N,d), perpendicular to it; `slack` (N,) is positive at `start`.
    """
    fall = planes @ planes.T
    when = torch.where(fall > 0, slack / fall, torch.inf)
    near, first = when.min(dim=1)
    far = when.scatter(1, first[:, None], torch.inf).amin(dim=1)
    middle = (near + torch.minimum(far, 3 * near)) / 2
    crossed = torch.isfinite(middle) & (near > 0)
    points = start - middle[:, None] * planes
    return first[crossed], points[crossed]
