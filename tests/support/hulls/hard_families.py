"""Hard families of hulls: queries very close to a facet, extreme numbers, wedges, far points."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

from support.flips.case import Array
from support.flips.families import Generator, power
from support.hulls.case import HullCase
from support.hulls.families import ROWS, around, finish, hull_family, sizes


@hull_family
def near_facets(g: Generator) -> HullCase:
    """Queries on facets of Qhull, and very slightly outside or inside."""
    d = int(g.integers(2, 5))
    points = g.standard_normal((int(g.integers(d + 1, 60)), d))
    points += power(g, 0, 5) * g.standard_normal(d) * (g.random() < 0.3)
    hull = ConvexHull(points)
    pick = g.integers(0, len(hull.simplices), ROWS)
    weights = g.dirichlet(np.ones(d), ROWS)
    on = (weights[:, :, None] * points[hull.simplices[pick]]).sum(axis=1)
    return finish(g, points, on + _tiny(g) * hull.equations[pick, :-1])


@hull_family
def near_facets_of_simplices(g: Generator) -> HullCase:
    """Queries near facets of simplices in any dimension, some of them thin."""
    d = int(g.integers(1, 25))
    points = g.standard_normal((d + 1, d)) * 10 ** g.uniform(-g.integers(0, 7), 0, d)
    corner = g.integers(0, d + 1)
    facet = np.delete(points, corner, axis=0)
    normal = np.linalg.svd(facet[1:] - facet[0])[2][-1] if d > 1 else np.ones(1)
    normal = normal * -np.sign(normal @ (points[corner] - facet[0]))
    on = g.dirichlet(np.ones(d), ROWS) @ facet
    return finish(g, points, on + _tiny(g) * normal)


def _tiny(g: Generator) -> Array:
    size = 10 ** g.uniform(-14, -5, (ROWS, 1))
    return np.asarray(size * g.choice([-1, 0, 1, 1], (ROWS, 1)))


@hull_family
def at_the_tolerance(g: Generator) -> HullCase:
    """Queries at about 1e-9 of the scale outside, where membership changes."""
    n, d = sizes(g)
    points = g.standard_normal((n + 1, d))
    u = g.standard_normal((ROWS, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    corner = points[(u @ points.T).argmax(axis=1)]
    scale = np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
    size = 1e-9 * scale * (1 + 10 ** g.uniform(-12, 0, (ROWS, 1)) * g.choice([-1, 0, 1], (ROWS, 1)))
    return finish(g, points, corner + size * u)


@hull_family
def common_offset(g: Generator) -> HullCase:
    points = g.standard_normal(sizes(g, 100, 16))
    points = points + power(g, 3, 9) * np.sign(g.standard_normal(points.shape[1]))
    return finish(g, points.astype(np.float32) if g.random() < 0.2 else points)


@hull_family
def scaled(g: Generator) -> HullCase:
    case = finish(g, g.standard_normal(sizes(g)))
    return _times(case, power(g, -150, 150))


@hull_family
def extreme(g: Generator) -> HullCase:
    """Numbers whose squares underflow or overflow."""
    case = finish(g, g.standard_normal(sizes(g)))
    return _times(case, power(g, -320, -150) if g.random() < 0.5 else power(g, 145, 305))


@hull_family
def beyond_single_precision(g: Generator) -> HullCase:
    """Numbers of many sizes that single precision can barely or not represent."""
    n, d = sizes(g, 100)
    points = g.standard_normal((n, d)) * 10 ** g.uniform(-3, 3, (n, d)) * power(g, 34, 42)
    case = finish(g, points)
    return case if g.random() < 0.5 else _times(case, 1e-78)


def _times(case: HullCase, factor: float) -> HullCase:
    with np.errstate(over="ignore"):  # rows that overflow are bad rows, and are reported as such
        queries = case.queries * factor
    points = np.clip(case.points * factor, -1.7e308, 1.7e308)
    itself = case.leave_out >= 0 if case.leave_out is not None else np.zeros(len(queries), bool)
    if case.leave_out is not None:
        queries[itself] = points[case.leave_out[itself]]
    return HullCase(
        points=points,
        queries=queries,
        labels=case.labels,
        wanted=case.wanted,
        leave_out=case.leave_out,
        tolerance=case.tolerance,
    )


@hull_family
def columns_of_many_scales(g: Generator) -> HullCase:
    n, d = sizes(g, 100, 16)
    factor = 10 ** g.uniform(-8, 8, d)
    points = g.standard_normal((n, d))
    return finish(g, points * factor, around(g, points) * factor)


@hull_family
def rows_of_many_scales(g: Generator) -> HullCase:
    n, d = sizes(g, 100)
    return finish(g, g.standard_normal((n, d)) * 10 ** g.uniform(-10, 6, (n, 1)))


@hull_family
def one_far_point(g: Generator) -> HullCase:
    n, d = sizes(g)
    points = g.standard_normal((n + 1, d))
    near = around(g, points[:n])
    points[n] *= power(g, 2, 14)
    return finish(g, points, near if g.random() < 0.5 else None)


@hull_family
def wedge(g: Generator) -> HullCase:
    """Long and thin hulls: the residual turns by tiny angles between points far apart."""
    n, d = sizes(g, 100, 6)
    points = g.standard_normal((n + 2, d + 1)) * np.array([1.0] + [power(g, -10, -1)] * d)
    points = points @ np.linalg.qr(g.standard_normal((d + 1, d + 1)))[0]
    return finish(g, points)


@hull_family
def nearly_flat(g: Generator) -> HullCase:
    """A facet of many points that are off its plane by rounding, seen from outside."""
    n, d = sizes(g, 150, 8)
    points = g.standard_normal((n + 3, d + 1))
    points[:, 0] = power(g, -17, -6) * g.standard_normal(n + 3)
    queries = around(g, points)
    queries[:, 0] += g.choice([0, power(g, -12, 1)], ROWS)
    return finish(g, points, queries)


@hull_family
def polygon(g: Generator) -> HullCase:
    """Many vertices on a circle: facets that differ only slightly."""
    n = int(g.integers(10, 2000))
    turn = 2 * np.pi * (np.arange(n) if g.random() < 0.5 else n * g.random(n)) / n
    points = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    direction = g.standard_normal((ROWS, 2))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return finish(g, points, direction * (1 + _tiny(g) + g.choice([0, -1 / n**2], (ROWS, 1))))


@hull_family
def moment_curve(g: Generator) -> HullCase:
    """Cyclic polytopes: every point a vertex, with badly conditioned coordinates."""
    n, d = sizes(g, 80, 8)
    t = np.sort(g.uniform(-1.2, 1.2, n + 1))
    return finish(g, t[:, None] ** np.arange(1, d + 1))


@hull_family
def near_the_origin(g: Generator) -> HullCase:
    """Zero rows, zero queries and numbers down to the smallest."""
    n, d = sizes(g)
    points = g.standard_normal((n, d)) * 10 ** g.uniform(-323, 0, (n, 1))
    points[g.random(n) < 0.3] = 0
    points[:, g.random(d) < 0.3] = -0.0
    queries = around(g, points)
    queries[g.random(ROWS) < 0.3] = 0
    return finish(g, points, queries)
