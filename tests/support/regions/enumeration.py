"""Partitions of small heads by enumeration of vertices and facets, without linear programs.

The largest ball of ``{y : G y + h >= r norm}`` touches as many constraints as it has unknowns, so
all sets of that size are tried. Vertices of regions come from Qhull.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.spatial import HalfspaceIntersection

import fsboundary as fsb
from fsboundary import Partition, Status

Array = NDArray[np.float64]

FAR = 1e4
"""Bound at which an unbounded domain is cut off for the enumeration."""

LARGE = 100.0
"""Radius from which a ball, of planes near 1, may be limited by the cut."""

GROWTH = 8.0
"""Factor by which the largest ball must grow with ten times the cut, if balls of any size fit."""

THIN = 1e-7
"""A radius below this is degenerate here: Qhull's tolerance decides."""


def draw(seed: int) -> tuple[fsb.LinearHead, fsb.Domain | None]:
    """Return a random head with 2 to 4 classes and 2 or 3 features, and limits of its partition."""
    g = np.random.default_rng(seed)
    k, d = int(g.integers(2, 5)), int(g.integers(2, 4))
    weight, bias = g.standard_normal((k, d)), g.standard_normal(k)
    low = torch.from_numpy(-g.random(d))
    box = fsb.Domain.box(low, low + torch.from_numpy(0.2 + 2 * g.random(d)))
    domain = [fsb.Domain.unbounded(), fsb.Domain.nonnegative(), box][seed % 3]
    if seed % 5 == 0:
        # so that planes are parallel, equal or touching
        weight, bias = np.round(weight), np.round(bias)
    head = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), domain)
    within = None
    if seed % 7 == 0:
        high = domain.clip(torch.full((d,), 1.0, dtype=torch.float64))
        within = fsb.Domain.box(high - 0.75, high)
    return head, within


def limits(head: fsb.LinearHead, within: fsb.Domain | None) -> tuple[Array, Array]:
    """Return the limits of the domain, infinite ones included."""
    low, high = head.domain.limits(head.weight)
    if within is not None:
        low = torch.maximum(low, within.limits(head.weight)[0])
        high = torch.minimum(high, within.limits(head.weight)[1])
    return low.numpy(), high.numpy()


def largest_ball(rows: Array, offset: Array, norm: Array) -> tuple[float, Array]:
    """Return the largest r, possibly negative, and its centre; -inf if there is none."""
    n = rows.shape[1]
    constant = norm <= 1e-12 * np.maximum(np.abs(offset), 1.0)
    if (offset[constant] < -1e-12).any():
        return -np.inf, np.full(n, np.nan)
    rows, offset, norm = rows[~constant], offset[~constant], norm[~constant]
    rows, offset = rows / norm[:, None], offset / norm
    if n == 0 or len(rows) <= n:
        return np.inf, np.zeros(n)
    sets = np.array(list(combinations(range(len(rows)), n + 1)))
    system = np.concatenate([rows[sets], -np.ones((len(sets), n + 1, 1))], axis=2)
    regular = np.abs(np.linalg.det(system)) > 1e-9
    if not regular.any():
        return -np.inf, np.full(n, np.nan)
    found = np.linalg.solve(system[regular], -offset[sets[regular]][:, :, None])[:, :, 0]
    y, radius = found[:, :n], found[:, n]
    slack = (y @ rows.T + offset).min(axis=1)
    fits = slack >= radius - 1e-9 * (1 + np.abs(radius) + np.abs(y).max(axis=1))
    if not fits.any():
        return -np.inf, np.full(n, np.nan)
    best = np.flatnonzero(fits)[radius[fits].argmax()]
    return float(radius[best]), y[best]


def constraints(
    head: fsb.LinearHead, i: int, low: Array, high: Array, skip: int = -1
) -> tuple[Array, Array]:
    """Return rows and offsets of region `i` without class `skip`."""
    w, b, d = head.weight.numpy(), head.bias.numpy(), head.num_features
    others = [k for k in range(len(b)) if k not in (i, skip)]
    eye = np.eye(d)
    rows = np.vstack([w[i] - w[others], eye, -eye])
    return rows, np.concatenate([b[i] - b[others], -low, high])


def region_ball(head: fsb.LinearHead, i: int, low: Array, high: Array) -> tuple[float, Array]:
    """Return the Chebyshev radius and centre of region `i`."""
    rows, offset = constraints(head, i, low, high)
    return largest_ball(rows, offset, np.linalg.norm(rows, axis=1))


def facet_radius(head: fsb.LinearHead, i: int, j: int, low: Array, high: Array) -> float:
    """Return the radius of the facet of `i` and `j`, in coordinates of the tie's plane."""
    w, b = head.weight.numpy(), head.bias.numpy()
    normal = w[i] - w[j]
    if not normal.any():
        return -np.inf
    origin = -(b[i] - b[j]) / (normal @ normal) * normal
    frame = null_space(normal[None])
    rows, offset = constraints(head, i, low, high, skip=j)
    along = rows @ frame
    along[np.abs(along) < 1e-12] = 0.0
    return largest_ball(along, rows @ origin + offset, np.linalg.norm(along, axis=1))[0]


def qhull_extent(head: fsb.LinearHead, i: int, j: int, inside: Array, box: Array) -> float:
    """Return the spread of the vertices of region `i` on the tie with `j`, in its plane.

    It is the smallest of d - 1 singular values: above 0 if they span a facet.
    """
    w, b = head.weight.numpy(), head.bias.numpy()
    rows, offset = constraints(head, i, *box)
    keep = np.linalg.norm(rows, axis=1) > 0
    halfspaces = -np.column_stack([rows[keep], offset[keep]])
    vertices = HalfspaceIntersection(halfspaces, inside).intersections
    normal, constant = w[i] - w[j], b[i] - b[j]
    if not normal.any():
        return 0.0
    on = np.abs(vertices @ normal + constant) <= 1e-8 * np.linalg.norm(normal) * (
        1 + np.abs(vertices).max(axis=1)
    )
    points = vertices[on]
    d = len(normal)
    if len(points) < d:
        return 0.0
    return float(np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[d - 2])


def disagreements(
    head: fsb.LinearHead, within: fsb.Domain | None, found: Partition
) -> tuple[list[str], Counter[str]]:
    """Return the disagreements with enumeration, and the number of comparisons of each kind."""
    low, high = limits(head, within)
    box, wide = (
        np.stack([np.maximum(low, -far), np.minimum(high, far)]) for far in (FAR, 10 * FAR)
    )
    faults: list[str] = []
    seen: Counter[str] = Counter()
    for i in range(head.num_classes):
        radius, centre = region_ball(head, i, *box)
        grown = region_ball(head, i, *wide)[0]
        status, got = int(found.region_status[i]), float(found.chebyshev_radius[i])
        faults += _compare(f"region {i}", status, got, (radius, grown), seen)
        faults += _above(f"region {i}", float(found.chebyshev_upper[i]), radius)
        for j in range(head.num_classes):
            if j == i:
                continue
            if j > i:
                want = facet_radius(head, i, j, *box), facet_radius(head, i, j, *wide)
                status, got = int(found.status[i, j]), float(found.facet_radius[i, j])
                faults += _compare(f"facet {i} {j}", status, got, want, seen)
                if status != Status.DUPLICATE:
                    faults += _above(f"facet {i} {j}", float(found.facet_upper[i, j]), want[0])
            if radius > THIN:
                extent = qhull_extent(head, i, j, centre, box)
                if bool(found.adjacency[i, j]) != (extent > THIN):
                    degenerate = float(found.facet_radius[i, j].nan_to_num(0.0)) < THIN
                    seen["degenerate"] += degenerate
                    faults += [] if degenerate else [f"facet {i} {j}: Qhull's extent {extent}"]
    return faults, seen


def _above(name: str, upper: float, want: float) -> list[str]:
    """Return a fault if a bound is below an enumerated radius, to the digits of the latter."""
    wrong = not upper >= want - 1e-9 * max(1.0, abs(want))
    return [f"{name}: upper bound {upper}, enumeration {want}"] if wrong else []


def _compare(
    name: str, status: int, got: float, radii: tuple[float, float], seen: Counter[str]
) -> list[str]:
    """Return a fault if the radii within the cut and within ten times the cut disagree."""
    seen[Status(status).name] += 1
    want, grown = radii
    if status == Status.CONVERGED:
        wrong = abs(got - want) > 1e-7 * max(1.0, want) and min(got, want) < LARGE
    elif status == Status.UNBOUNDED:
        wrong = want < np.inf and grown < GROWTH * want
    elif status == Status.INFEASIBLE:
        wrong = want > THIN
    elif status == Status.DUPLICATE:
        wrong = want != -np.inf
    else:
        wrong = abs(want) > THIN
        seen["degenerate"] += not wrong
    return [f"{name}: {Status(status).name} {got}, enumeration {want}"] if wrong else []


def exact_faults(head: fsb.LinearHead, within: fsb.Domain | None, found: Partition) -> list[str]:
    """Return the certificates that fractions refute: centres with their radii.

    A facet's centre stands for its projection on the tie.
    """
    low, high = limits(head, within)
    free = [m for m in range(len(low)) if low[m] < high[m]]
    faults = []
    for i in found.nonempty.nonzero()[:, 0].tolist():
        z = [Fraction(v) for v in found.chebyshev_centre[i].tolist()]
        if not _ball_fits(head, i, None, z, float(found.chebyshev_radius[i]), free, low, high):
            faults.append(f"region {i}")
    for (i, j), centre in zip(found.facet_pairs.tolist(), found.facet_centre.tolist(), strict=True):
        z = [Fraction(v) for v in centre]
        if not _ball_fits(head, i, j, z, float(found.facet_radius[i, j]), free, low, high):
            faults.append(f"facet {i} {j}")
    return faults


def _ball_fits(
    head: fsb.LinearHead,
    i: int,
    j: int | None,
    z: list[Fraction],
    radius: float,
    free: list[int],
    low: Array,
    high: Array,
) -> bool:
    w = [[Fraction(v) for v in row] for row in head.weight.tolist()]
    b = [Fraction(v) for v in head.bias.tolist()]

    def slack(k: int, m: int) -> tuple[list[Fraction], Fraction]:
        row = [w[k][q] - w[m][q] for q in range(len(z))]
        return [row[q] for q in free], b[k] - b[m] + _dot(row, z)

    tie: list[Fraction] = []
    step = Fraction(0)
    if j is not None:
        tie, value = slack(i, j)
        step = value / _dot(tie, tie)
    square_radius = Fraction(0) if np.isinf(radius) else Fraction(radius) ** 2
    sides = [slack(i, k) for k in range(len(b)) if k not in (i, j)]
    for index, q in enumerate(free):
        unit = [Fraction(int(m == index)) for m in range(len(free))]
        if np.isfinite(low[q]):
            sides.append((unit, z[q] - Fraction(float(low[q]))))
        if np.isfinite(high[q]):
            sides.append(([-u for u in unit], Fraction(float(high[q])) - z[q]))
    for row, value in sides:
        square = _dot(row, row)
        if tie:
            along = _dot(row, tie)
            value -= step * along
            square -= along * along / _dot(tie, tie)
        if square == 0 and value >= 0:
            continue  # constant on the set, and satisfied
        if value <= 0 or square_radius * square > value * value:
            return False
    return True


def _dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
