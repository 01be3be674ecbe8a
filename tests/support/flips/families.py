"""Families of flip problems: random ones, and those in which certificates usually break.

Each function draws one :class:`Case`; :data:`FAMILIES` maps names to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from support.flips.case import Array, Case

Generator = np.random.Generator
Family = Callable[[Generator], Case]
FAMILIES: dict[str, Family] = {}
ROWS = 6


def family(function: Family) -> Family:
    """Enter a family under its own name."""
    FAMILIES[function.__name__] = function
    return function


def sizes(g: Generator, classes: int = 10, width: int = 12) -> tuple[int, int]:
    """Return K from 2 and d from 1, small ones more often."""
    return int(g.integers(2, classes + 1)), int(g.integers(1, width + 1))


def targets(g: Generator, classes: int, rows: int) -> Any:
    """Return one of the three ways to say which targets are wanted."""
    choice = g.random()
    if choice < 0.3:
        return "nearest"
    if choice < 0.75 and classes <= 12:
        return "all"
    found = g.integers(0, classes, (rows, int(g.integers(1, 5))))
    if found.shape == (rows, classes) and found.max() < 2 < classes:
        found[0, 0] = 2  # a table of zeros and ones would be taken for sets of labels, and refused
    return found


def in_domain(g: Generator, weight: Array, bias: Array, features: Array) -> Case:
    """Return the case in a random domain that holds `features`; some rows touch its faces."""
    kind = g.choice(["unbounded", "nonnegative", "nonnegative", "box"])
    k, d = weight.shape
    chosen = targets(g, k, len(features))
    if kind == "unbounded":
        return Case(weight=weight, bias=bias, features=features, targets=chosen)
    if kind == "nonnegative":
        z = np.maximum(features, 0)
        return Case(weight=weight, bias=bias, features=z, kind=kind, targets=chosen)
    spread = np.abs(features).max() if features.size else 1.0
    low, high = -spread * g.random(d), spread * g.random(d)
    low[g.random(d) < 0.3] = -np.inf
    high[g.random(d) < 0.3] = np.inf
    fixed = (g.random(d) < 0.15) & np.isfinite(low)
    high[fixed] = low[fixed]
    low, high = np.minimum(low, high), np.maximum(low, high)
    z = np.clip(features, low, high)
    return Case(
        weight=weight, bias=bias, features=z, kind=kind, lower=low, upper=high, targets=chosen
    )


def normal_parts(g: Generator, k: int, d: int, rows: int = ROWS) -> tuple[Array, Array, Array]:
    """Return standard normal weight, bias and features."""
    return g.standard_normal((k, d)), g.standard_normal(k), 2 * g.standard_normal((rows, d))


def power(g: Generator, low: float, high: float) -> float:
    """Return 10 to a uniform power."""
    return float(10 ** g.uniform(low, high))


@family
def gaussian(g: Generator) -> Case:
    return in_domain(g, *normal_parts(g, *sizes(g)))


@family
def wide(g: Generator) -> Case:
    k, d = sizes(g, 100, 64)
    w, b, z = normal_parts(g, k, d, 4)
    case = in_domain(g, w, b, z)
    return replace(case, targets="nearest" if g.random() < 0.2 else g.integers(0, k, (4, 5)))


@family
def fewer_features_than_classes(g: Generator) -> Case:
    d = int(g.integers(1, 4))
    return in_domain(g, *normal_parts(g, int(g.integers(d + 2, 16)), d))


@family
def scaled(g: Generator) -> Case:
    w, b, z = normal_parts(g, *sizes(g))
    w, b, z = w * power(g, -6, 6), b * power(g, -6, 6), z * power(g, -6, 6)
    return in_domain(g, w, b, z)


@family
def columns_of_many_scales(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    factor = 10 ** g.uniform(-8, 8, d)
    return in_domain(g, w * factor, b, z / (factor if g.random() < 0.5 else 1))


@family
def duplicates(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    copy = g.integers(0, k, k)
    keep = g.random(k) < 0.5
    w = np.where(keep[:, None], w, w[copy])
    b = np.where(keep | (g.random(k) < 0.5), b, b[copy])
    return in_domain(g, w, b, z)


@family
def near_duplicates(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    copy = g.integers(0, k, k)
    keep = g.random(k) < 0.4
    share = 10 ** g.uniform(-13, -3, (k, 1))
    w = np.where(keep[:, None], w, w[copy] + share * w)
    b = np.where(keep, b, b[copy] + share[:, 0] * b * (g.random() < 0.5))
    return in_domain(g, w, b, z)


@family
def near_ties(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    logits = z @ w.T + b
    i, j = logits.argmax(1), g.integers(0, k, len(z))
    normal = w[i] - w[j]
    gap = (logits[np.arange(len(z)), i] - logits[np.arange(len(z)), j])[:, None]
    share = 1 - 10 ** g.uniform(-17, -2, (len(z), 1)) * g.choice([-1, 0, 1], (len(z), 1))
    square = (normal * normal).sum(1, keepdims=True)
    z = z - share * gap * normal / np.where(square > 0, square, 1)
    return in_domain(g, w, b, z)


@family
def small_integers(g: Generator) -> Case:
    k, d = sizes(g, 7, 5)
    w, b = g.integers(-1, 2, (k, d)).astype(float), g.integers(-1, 2, k).astype(float)
    return in_domain(g, w, b, g.integers(-2, 3, (ROWS, d)).astype(float))


@family
def corners(g: Generator) -> Case:
    case = in_domain(g, *normal_parts(g, *sizes(g)))
    low, high = case.limits()
    low, high = np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
    low, high = np.minimum(low, high), np.maximum(low, high)
    z = np.where(g.random(case.features.shape) < 0.5, low, high)
    z[0] = low
    return replace(case, features=np.clip(z, *case.limits()))


@family
def collinear(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    w = g.standard_normal((k, 1)) * w[:1]
    if g.random() < 0.5:
        w = w + power(g, -14, -2) * g.standard_normal((k, d))
    return in_domain(g, w + g.standard_normal(d) * (g.random() < 0.5), b, z)


@family
def parallel(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    w = g.integers(-3, 4, (k, 1)) * w[:1] + g.integers(-1, 2, (k, 1)) * w[-1:]
    return in_domain(g, w, b * power(g, -3, 0), z)


@family
def common_offset(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    w = w + power(g, 2, 13) * g.standard_normal(d)
    return in_domain(g, w, b + power(g, 0, 10) * (g.random() < 0.5), z)


@family
def zero_rows_and_columns(g: Generator) -> Case:
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    w[g.random(k) < 0.4] = 0
    w[:, g.random(d) < 0.4] = 0
    b[g.random(k) < 0.3] = 0
    z[g.random(len(z)) < 0.2] = 0
    return in_domain(g, w, b, z)


@family
def single_precision(g: Generator) -> Case:
    w, b, z = (a.astype(np.float32) for a in normal_parts(g, *sizes(g)))
    kind = g.choice(["unbounded", "nonnegative"])
    z = np.maximum(z, 0) if kind == "nonnegative" else z
    return Case(weight=w, bias=b, features=z, kind=kind, targets=targets(g, len(b), len(z)))


@family
def sparse_features(g: Generator) -> Case:
    k, d = int(g.integers(2, 12)), int(g.integers(8, 40))
    w, b, z = normal_parts(g, k, d)
    z = np.maximum(z, 0) * (g.random(z.shape) < 0.3)
    return Case(
        weight=w, bias=b * 0.1, features=z, kind="nonnegative", targets=targets(g, k, len(z))
    )
