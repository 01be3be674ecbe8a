"""Families at the edge: empty and nearly empty regions, thin wedges, extreme numbers, bad rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from support.flips.case import Case
from support.flips.families import (
    ROWS,
    Generator,
    family,
    in_domain,
    normal_parts,
    power,
    sizes,
    targets,
)


@family
def empty_regions(g: Generator) -> Case:
    """A class below a mixture of the others everywhere, by a large or a tiny margin, or not."""
    k, d = int(g.integers(3, 9)), int(g.integers(1, 9))
    w, b, z = normal_parts(g, k, d)
    share = g.random(k - 1)
    share /= share.sum()
    if g.random() < 0.4:
        share = np.zeros(k - 1)
        share[:2] = 0.5
    w[-1], b[-1] = share @ w[:-1], share @ b[:-1]
    b[-1] -= power(g, -17, 1) * g.choice([-1, 0, 1, 1])
    order = g.permutation(k)
    return in_domain(g, w[order], b[order], z)


@family
def empty_in_the_orthant(g: Generator) -> Case:
    """A class below another one for all nonnegative features, barely or by much, or not."""
    k, d = int(g.integers(2, 9)), int(g.integers(1, 9))
    w, b, z = normal_parts(g, k, d)
    lower = np.abs(g.standard_normal(d)) * (g.random(d) < 0.7)
    w[1] = w[0] - lower
    b[1] = b[0] - power(g, -17, 1) * g.choice([-1, 0, 1, 1])
    if g.random() < 0.3:
        w[1, 0] = w[0, 0] + power(g, -16, -1)
    order = g.permutation(k)
    z = np.maximum(z, 0)
    return Case(
        weight=w[order],
        bias=b[order],
        features=z,
        kind="nonnegative",
        targets=targets(g, k, len(z)),
    )


@family
def thin_wedges(g: Generator) -> Case:
    """A class that wins in a sliver only, its tip far away or near."""
    k, d = int(g.integers(3, 6)), int(g.integers(2, 6))
    w, b, z = normal_parts(g, k, d)
    angle = power(g, -12, -1)
    w[2] = 0.5 * (w[0] + w[1]) + angle * g.standard_normal(d)
    b[2] = 0.5 * (b[0] + b[1]) - power(g, -8, 0) * g.choice([-1, 1])
    return in_domain(g, w, b, z)


@family
def shifted_far(g: Generator) -> Case:
    """Features and boundaries far from the origin: the scale is large, the distances are not."""
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    shift = power(g, 2, 9) * g.standard_normal(d)
    return in_domain(g, w, b - w @ shift, z + shift)


@family
def wide_boxes(g: Generator) -> Case:
    """Boxes whose sides are huge or tiny beside the features."""
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    low = z.min(axis=0) - 10 ** g.uniform(-12, 12, d) * (g.random(d) < 0.8)
    high = z.max(axis=0) + 10 ** g.uniform(-12, 12, d) * (g.random(d) < 0.8)
    return Case(
        weight=w,
        bias=b,
        features=z,
        kind="box",
        lower=low,
        upper=high,
        targets=targets(g, k, len(z)),
    )


@family
def near_faces(g: Generator) -> Case:
    """Features at tiny distances from the faces, down to subnormal numbers."""
    k, d = sizes(g)
    w, b, z = normal_parts(g, k, d)
    tiny = 10 ** g.uniform(-323, -5, z.shape)
    z = np.where(g.random(z.shape) < 0.5, tiny, np.abs(z)) * (g.random(z.shape) < 0.8)
    return Case(weight=w, bias=b, features=z, kind="nonnegative", targets=targets(g, k, len(z)))


@family
def extreme_numbers(g: Generator) -> Case:
    """Weights, biases and features near the ends of float64, each by itself or together."""
    k, d = int(g.integers(2, 5)), int(g.integers(1, 5))
    w, b, z = normal_parts(g, k, d, 3)
    if g.random() < 0.4:
        w, b = (a * (s := power(g, -320, 300)) for a in (w, b))  # the same problem, rescaled
        if not np.isfinite(s):
            raise ValueError(s)
    elif g.random() < 0.5:
        s = power(g, -300, 150)
        b, z = b * s, z * s
    else:
        w, b, z = w * power(g, -200, 150), b * power(g, -200, 150), z * power(g, -200, 150)
    return in_domain(g, w, b, z)


@family
def extreme_differences(g: Generator) -> Case:
    """Ordinary rows that differ by almost nothing in some coordinates."""
    k, d = int(g.integers(2, 5)), int(g.integers(1, 5))
    w, b, z = normal_parts(g, k, d, 3)
    w[:, 0] = power(g, -320, -100) * g.standard_normal(k)
    w[1, 1:] = w[0, 1:]
    b[1] = b[0] + power(g, -320, 0) * g.choice([-1, 0, 1])
    z[:, 0] *= power(g, -3, 300)
    return in_domain(g, w, b, z)


@family
def bad_rows(g: Generator) -> Case:
    """NaN, infinite and outside rows among good ones; targets equal to the source, repeated."""
    k, d = sizes(g)
    case = in_domain(g, *normal_parts(g, k, d))
    z = case.features.copy()
    low, high = case.limits()
    for row in range(len(z)):
        column = g.integers(d)
        choice = g.integers(5)
        if choice < 3:
            z[row, column] = (np.nan, np.inf, -np.inf)[choice]
        elif choice == 3 and np.isfinite(low[column]):
            z[row, column] = low[column] - power(g, -10, 1) * max(1, abs(low[column]))
        elif choice == 3 and np.isfinite(high[column]):
            z[row, column] = high[column] + power(g, -10, 1) * max(1, abs(high[column]))
    chosen = g.integers(0, k, (len(z), 3))
    chosen[:, 2] = chosen[:, 1]
    return replace(case, features=z, targets=chosen if g.random() < 0.6 else case.targets)


@family
def loose_tolerance(g: Generator) -> Case:
    """A tolerance of a user's choice."""
    case = in_domain(g, *normal_parts(g, *sizes(g)))
    return replace(case, tolerance=power(g, -12, -1))


@family
def lattice_ties(g: Generator) -> Case:
    """Rows exactly on ties of several classes, in exact arithmetic, and their duplicates."""
    k, d = int(g.integers(2, 8)), int(g.integers(1, 6))
    w = g.integers(-2, 3, (k, d)) * 0.5
    z = g.integers(0, 4, (ROWS, d)) * 0.25
    point = z[0]
    b = -(w @ point) + g.integers(0, 2) * g.integers(-1, 1, k)
    return in_domain(g, w, b, z)


@family
def absorbed_differences(g: Generator) -> Case:
    """Logits so large that differences between classes round away in them."""
    k, d = sizes(g, 6, 4)
    w, b, z = normal_parts(g, k, d)
    size = 2.0 ** g.integers(20, 60)
    w = np.round(w[:1]) * size + np.where(g.random((k, 1)) < 0.5, 0, w * power(g, -3, 3))
    b = b * power(g, -3, 3) + size * (g.random() < 0.5)
    return in_domain(g, w, b, np.round(z) if g.random() < 0.5 else z)


@family
def mixtures(g: Generator) -> Case:
    """Several of the troubles above in one head."""
    k, d = sizes(g, 8, 8)
    w, b, z = normal_parts(g, k, d)
    for trouble in g.choice(7, int(g.integers(2, 5)), replace=False):
        first, second = g.integers(0, k, 2)
        if trouble == 0:
            w[first], b[first] = w[second], b[second] + power(g, -17, 0) * g.choice([-1, 0, 1])
        elif trouble == 1:
            w[first] = w[second] + power(g, -16, -4) * g.standard_normal(d)
            b[first] = b[second] if g.random() < 0.5 else b[first]
        elif trouble == 2:
            w *= 10 ** g.uniform(-5, 5, d)
        elif trouble == 3:
            w += power(g, 0, 8) * g.standard_normal(d)
        elif trouble == 4:
            z[g.random(z.shape) < 0.6] = 0
            w[:, g.integers(d)] = 0
        elif trouble == 5:
            w[first] = 0.5 * (w[0] + w[-1])
            b[first] = 0.5 * (b[0] + b[-1]) + power(g, -17, 0) * g.choice([-1, 0, 1])
        else:
            w, b, z = np.round(2 * w) / 2, np.round(2 * b) / 2, np.round(2 * z) / 2
    return in_domain(g, w, b, z)
