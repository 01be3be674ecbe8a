"""Families of hulls: random ones, and those in which certificates usually fail.

Each function draws one :class:`HullCase`; :data:`HULL_FAMILIES` maps names to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from support.flips.case import Array
from support.flips.families import Generator, power
from support.hulls.case import HullCase

HullFamily = Callable[[Generator], HullCase]
HULL_FAMILIES: dict[str, HullFamily] = {}
ROWS = 24


def hull_family(function: HullFamily) -> HullFamily:
    """Register a family under its own name."""
    HULL_FAMILIES[function.__name__] = function
    return function


def sizes(g: Generator, max_points: int = 60, width: int = 10) -> tuple[int, int]:
    """Return n and d from 1, small numbers more often."""
    return int(max_points ** g.random()), int(g.integers(1, width + 1))


def around(g: Generator, points: Array, rows: int = ROWS) -> Array:
    """Return queries (rows, d) of all kinds: in, on, near and far from the hull of `points`."""
    n, d = points.shape
    v = points.astype(np.float64)
    centre = v.mean(axis=0)
    spread = np.abs(v - centre).max() or 1.0
    weights = g.random((rows, n)) ** g.integers(1, 20)
    few = g.random((rows, n)) < 3 / n
    weights = (
        np.where(few.any(axis=1, keepdims=True) & (g.random((rows, 1)) < 0.5), few, 1) * weights
    )
    weights[:, 0] += 1e-300
    mixed = (weights / weights.sum(axis=1, keepdims=True)) @ v
    away = g.standard_normal((rows, d)) * spread
    tiny = 10 ** g.uniform(-13, -6, (rows, 1))
    kinds = [
        centre + away,
        centre + 3 * away,
        mixed,  # inside, or on a face
        mixed + tiny * away,
        v[g.integers(0, n, rows)],
        (v[g.integers(0, n, rows)] + v[g.integers(0, n, rows)]) / 2,
        np.broadcast_to(centre, (rows, d)),
        centre + away * 10 ** g.uniform(6, 12, (rows, 1)),  # far
        centre + (v[g.integers(0, n, rows)] - centre) * (1 + tiny * g.choice([-1, 1], (rows, 1))),
        v[g.integers(0, n, rows)] + tiny * away,
    ]
    return np.stack(kinds)[g.integers(0, len(kinds), rows), np.arange(rows)]


def finish(g: Generator, points: Array, queries: Array | None = None) -> HullCase:
    """Return the case with random options: classes, points left out, bad rows, a tolerance."""
    n, d = points.shape
    queries = around(g, points) if queries is None else queries
    queries = np.array(queries)
    rows = len(queries)
    if g.random() < 0.1:
        bad = g.integers(0, rows, 3)
        queries[bad, g.integers(0, d, 3)] = g.choice([np.nan, np.inf, -np.inf], 3)
    labels = wanted = None
    if g.random() < 0.15:
        labels = g.integers(0, 3, n) * 7  # classes need not follow one another
        wanted = g.choice(labels, rows)
    tolerance = 1e-6 if g.random() < 0.8 else power(g, -10, -2)
    case = HullCase(
        points=points, queries=queries, labels=labels, wanted=wanted, tolerance=tolerance
    )
    return case if g.random() < 0.8 else leave_out_points(g, case)


def leave_out_points(g: Generator, case: HullCase) -> HullCase:
    """Return the case with points left out, some of them the queries, but never all of a hull."""
    rows, n = len(case.queries), len(case.points)
    chosen = np.where(g.random(rows) < 0.8, g.integers(0, n, rows), -1)
    queries = np.array(case.queries)
    itself = (chosen >= 0) & (g.random(rows) < 0.7)
    queries[itself] = case.points[chosen[itself]]

    def with_chosen() -> HullCase:
        return HullCase(
            points=case.points,
            queries=queries,
            labels=case.labels,
            wanted=case.wanted,
            leave_out=chosen,
            tolerance=case.tolerance,
        )

    none = [r for r in range(rows) if not with_chosen().counts(r).any()]
    chosen[none] = -1
    return with_chosen()


@hull_family
def gaussian(g: Generator) -> HullCase:
    return finish(g, g.standard_normal(sizes(g)))


@hull_family
def large(g: Generator) -> HullCase:
    n, d = int(g.integers(300, 3000)), int(g.integers(2, 33))
    return finish(g, g.standard_normal((n, d)))


@hull_family
def fewer_points_than_coordinates(g: Generator) -> HullCase:
    d = int(g.integers(3, 40))
    return finish(g, g.standard_normal((int(g.integers(1, d)), d)))


@hull_family
def one_coordinate(g: Generator) -> HullCase:
    return finish(g, g.standard_normal((sizes(g)[0], 1)))


@hull_family
def one_point(g: Generator) -> HullCase:
    points = g.standard_normal((1, sizes(g)[1]))
    return finish(g, np.repeat(points, g.integers(1, 4), axis=0) * power(g, -3, 3))


@hull_family
def sphere(g: Generator) -> HullCase:
    points = g.standard_normal(sizes(g, 200))
    return finish(g, points / np.linalg.norm(points, axis=1, keepdims=True))


@hull_family
def simplex(g: Generator) -> HullCase:
    d = int(g.integers(1, 12))
    points = np.vstack([np.eye(d), np.zeros((int(g.integers(0, 2)), d))])
    return finish(g, points * power(g, -2, 2))


@hull_family
def cross_polytope_and_cube(g: Generator) -> HullCase:
    d = int(g.integers(1, 7))
    cross = np.vstack([np.eye(d), -np.eye(d)])
    cube = np.array(np.meshgrid(*[[-1.0, 1.0]] * d)).reshape(d, -1).T
    return finish(g, cross if g.random() < 0.5 else cube)


@hull_family
def sparse_features(g: Generator) -> HullCase:
    n, d = int(g.integers(5, 200)), int(g.integers(4, 40))

    def features(rows: int) -> Array:
        return np.maximum(g.standard_normal((rows, d)), 0) * (g.random((rows, d)) < 0.4)

    points = features(n)
    queries = features(ROWS) if g.random() < 0.5 else around(g, points)
    return finish(g, points, queries)


@hull_family
def single_precision(g: Generator) -> HullCase:
    points = g.standard_normal(sizes(g, 500, 30)).astype(np.float32)
    queries = around(g, points)
    return finish(g, points, queries.astype(np.float32) if g.random() < 0.5 else queries)


@hull_family
def duplicates(g: Generator) -> HullCase:
    n, d = sizes(g)
    points = g.standard_normal((n, d))[g.integers(0, n, 3 * n)]
    return leave_out_points(g, finish(g, points))


@hull_family
def near_duplicates(g: Generator) -> HullCase:
    n, d = sizes(g)
    points = g.standard_normal((n, d))[g.integers(0, n, 3 * n)]
    points = points * (1 + power(g, -16, -5) * g.standard_normal(points.shape))
    return leave_out_points(g, finish(g, points))


@hull_family
def collinear(g: Generator) -> HullCase:
    n, d = sizes(g)
    points = g.standard_normal((n, 1)) * g.standard_normal(d) + g.standard_normal(d)
    return finish(g, points + power(g, -17, -3) * g.standard_normal((n, d)))


@hull_family
def flat(g: Generator) -> HullCase:
    """Points of rank 1 to 3, in some coordinates only or rotated."""
    n, d = sizes(g, 100, 20)
    rank = int(g.integers(1, 4))
    points = np.zeros((n, d))
    points[:, :rank] = g.standard_normal((n, rank))[:, :d]
    if g.random() < 0.5:
        points = points @ np.linalg.qr(g.standard_normal((d, d)))[0]
    queries = around(g, points)
    if g.random() < 0.5:  # queries in the same plane
        queries = queries @ np.linalg.pinv(points) @ points if n < 2 * d else queries
    return finish(g, points, queries)


@hull_family
def lattice(g: Generator) -> HullCase:
    """Whole numbers: many ties, and faces that contain many points."""
    n, d = sizes(g, 120, 5)
    points = g.integers(-2, 3, (n, d)).astype(np.float32 if g.random() < 0.5 else float)
    queries = g.integers(-4, 5, (ROWS, d)) / g.choice([1, 2, 4, 3])
    return finish(g, points, queries)


@hull_family
def leave_one_out(g: Generator) -> HullCase:
    n, d = sizes(g, 100)
    points = g.standard_normal((n + 2, d))
    points[g.random(n + 2) < 0.3] = points[0]
    return leave_out_points(g, finish(g, points))


@hull_family
def classes(g: Generator) -> HullCase:
    n, d = int(g.integers(3, 90)), int(g.integers(1, 9))
    labels = g.integers(0, 3, n)
    labels[0] = 3  # a class of one point
    points = g.standard_normal((n, d)) + 4 * labels[:, None]
    wanted = g.choice(labels, ROWS)
    case = HullCase(points=points, queries=around(g, points), labels=labels, wanted=wanted)
    return case if g.random() < 0.5 else leave_out_points(g, case)
