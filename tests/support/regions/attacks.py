"""Points of guaranteed sets, sampled and attacked, and their exact class.

The points are made in longdouble. A set has one linear function to minimise for each other class,
so the attacks are exact: the worst point of a ball in a box, the worst corner, and the worst vertex
plus a step. A class that longdouble does not decide is decided in fractions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fsboundary as fsb

Array = NDArray[Any]
Generator = np.random.Generator
NEARLY = 1 - np.longdouble(1e-9)
_SMALLEST = np.longdouble(2.0) ** -63


def wide(values: torch.Tensor) -> Array:
    """Return float64 values as longdouble, which is exact."""
    out: Array = values.double().numpy().astype(np.longdouble)
    return out


def changed(head: fsb.LinearHead, points: Array, source: Array, *, strict: bool) -> Array:
    """Return which points (P,d) have another class than `source` (P,).

    With `strict` a tie counts as another class.
    """
    w, b = wide(head.weight), wide(head.bias)
    logits = points @ w.T + b
    noise = (points.shape[1] + 4) * _SMALLEST * (abs(points) @ abs(w).T + abs(b))
    row = np.arange(len(points))
    source_logits, source_noise = logits[row, source].copy(), noise[row, source]
    doubtful = logits + noise >= (source_logits - source_noise)[:, None]
    doubtful |= ~np.isfinite(logits)
    doubtful[row, source] = False
    bad = np.zeros(len(points), dtype=bool)
    for p in np.flatnonzero(doubtful.any(axis=1)).tolist():
        x = [Fraction(*v.as_integer_ratio()) for v in points[p]]
        exact = {
            k: sum((Fraction(v) * q for v, q in zip(head.weight[k].tolist(), x, strict=True)), 0)
            + Fraction(float(head.bias[k]))
            for k in [*np.flatnonzero(doubtful[p]).tolist(), int(source[p])]
        }
        source_logit = exact.pop(int(source[p]))
        bad[p] = any(v > source_logit or (strict and v == source_logit) for v in exact.values())
    return bad


def ball_points(
    head: fsb.LinearHead, balls: fsb.GuaranteedBalls, count: int, g: Generator
) -> tuple[Array, Array]:
    """Return points (P,d) of balls, and the ball (P,) of each: `count` random ones, K - 1 worst."""
    rows = np.flatnonzero((balls.radius > 0).numpy())
    z, radius = wide(balls.centre)[rows], wide(balls.radius)[rows]
    if not len(rows):
        return z, rows
    source = balls.source.numpy()[rows]
    # an unbounded ball is sampled at many sizes
    size = np.sqrt((z * z).sum(axis=1)) + 1
    radius = np.where(np.isinf(radius), size * 10 ** g.uniform(-3, 9, len(rows)), radius)
    d, l2 = z.shape[1], balls.norm == "l2"
    random = g.standard_normal((len(rows), count, d)).astype(np.longdouble)
    w = wide(head.weight)
    directions = np.concatenate([random, w - w[source][:, None, :]], axis=1)
    low, high = (wide(v) for v in head.domain.limits(head.weight))
    reach = NEARLY * radius[:, None, None]
    if l2:
        points = _worst_of_ball(z[:, None, :], directions, reach, low, high)
        length = np.sqrt(((points - z[:, None, :]) ** 2).sum(axis=2))
        # half of the random points lie anywhere in the ball
        half = count // 2
        points[:, :half] = z[:, None] + (points[:, :half] - z[:, None]) * g.random((1, half, 1))
    else:
        step = np.where(
            g.random(directions.shape) < 0.2,
            g.uniform(-1, 1, directions.shape),
            np.sign(directions),
        )
        step[:, count:] = np.sign(directions[:, count:])
        points = np.clip(z[:, None, :] + reach * step, low, high)
        length = abs(points - z[:, None, :]).max(axis=2)
    # rounding may have moved a point out of a tiny ball
    inside = length * (1 + 16 * _SMALLEST) < radius[:, None]
    return points[inside], np.broadcast_to(rows[:, None], inside.shape)[inside]


def _worst_of_ball(z: Array, directions: Array, reach: Array, low: Array, high: Array) -> Array:
    """Return the farthest points clip(z + t direction) in balls and the domain."""
    size = np.sqrt((directions * directions).sum(axis=2, keepdims=True))
    unit = directions / np.where(size > 0, size, 1)
    short, far = np.zeros_like(size), reach * np.longdouble(1e6) * np.ones_like(size)
    for _ in range(100):
        middle = (short + far) / 2
        ends = np.clip(z + middle * unit, low, high)
        fits = np.sqrt(((ends - z) ** 2).sum(axis=2, keepdims=True)) <= reach
        short, far = np.where(fits, middle, short), np.where(fits, far, middle)
    worst: Array = np.clip(z + short * unit, low, high)
    return worst


def box_points(
    head: fsb.LinearHead, boxes: fsb.GuaranteedBoxes, count: int, g: Generator
) -> tuple[Array, Array]:
    """Return points (P,d) of boxes, and the box (P,) of each: inside, corners, worst corners."""
    rows = np.flatnonzero(boxes.ok.numpy())
    lower, upper = wide(boxes.lower)[rows], wide(boxes.upper)[rows]
    if not len(rows):
        return lower, rows
    source = boxes.source.numpy()[rows]
    far = 10 ** g.uniform(0, 12, lower.shape)
    start = np.where(np.isfinite(upper), upper, np.where(np.isfinite(lower), lower, 0))
    lower = np.where(np.isfinite(lower), lower, start - far)
    start = np.where(np.isfinite(upper), upper, lower)
    upper = np.where(np.isfinite(upper), upper, start + far)
    d = lower.shape[1]
    fraction = g.random((len(rows), count, d))
    fraction[:, count // 2 :] = np.round(fraction[:, count // 2 :])
    w = wide(head.weight)
    worst = (w - w[source][:, None, :]) > 0
    fraction = np.concatenate([fraction, worst.astype(float)], axis=1)
    points = lower[:, None] + fraction * (upper - lower)[:, None]
    # the sum may round beyond the end
    points = np.where(fraction == 1, upper[:, None], np.minimum(points, upper[:, None]))
    return points.reshape(-1, d), np.repeat(rows, points.shape[1])


def hull_points(hulls: fsb.GuaranteedHulls, count: int, g: Generator) -> tuple[Array, Array]:
    """Return points (P,d) of hulls widened by their clearance, and the class (P,) of each.

    `count` per class: mixtures of a few or many generators, then a step of almost the
    clearance in a random direction or towards a class; and the worst vertex for each class, with
    a full step towards it.
    """
    w = wide(hulls.head.weight)
    points, classes = [np.zeros((0, w.shape[1]), dtype=np.longdouble)], [np.zeros(0, dtype=int)]
    for k, bank in enumerate(hulls.generators):
        if bank is None:
            continue
        v = wide(bank.features)
        weights = g.dirichlet(np.full(len(v), g.choice([0.01, 0.1, 1.0])), count)
        weights = weights.astype(np.longdouble)
        mixed = (weights / weights.sum(axis=1, keepdims=True)) @ v
        towards = w[g.integers(0, len(w), count)] - w[k]
        directions = np.where(g.random((count, 1)) < 0.5, g.standard_normal(mixed.shape), towards)
        worst = v[(v @ (w - w[k]).T).argmax(axis=0)]
        start, directions = np.concatenate([mixed, worst]), np.concatenate([directions, w - w[k]])
        size = np.sqrt((directions * directions).sum(axis=1, keepdims=True))
        clearance = np.longdouble(float(hulls.clearance[k]))
        reach = NEARLY * (clearance if np.isfinite(clearance) else np.longdouble(1e6))
        ends = start + reach * directions / np.where(size > 0, size, 1)
        moved = np.sqrt(((ends - start) ** 2).sum(axis=1)) + 32 * _SMALLEST * abs(v).max()
        ends = np.where((moved < clearance)[:, None], ends, start)
        points.append(ends)
        classes.append(np.full(len(ends), k))
    return np.concatenate(points), np.concatenate(classes)


def query_points(hulls: fsb.GuaranteedHulls, count: int, g: Generator) -> torch.Tensor:
    """Return points (P,d) of the domain around the rims of hulls, as queries for `certify`."""
    points = []
    for k, bank in enumerate(hulls.generators):
        if bank is None:
            continue
        v = bank.features.double()
        pick = v[torch.from_numpy(g.integers(0, len(v), (2, count)))]
        ends = pick[0] + torch.from_numpy(g.random((count, 1))) * (pick[1] - pick[0])
        directions = torch.from_numpy(g.standard_normal(ends.shape))
        other = hulls.head.weight[torch.from_numpy(g.integers(0, len(hulls.head.bias), count))]
        towards = other - hulls.head.weight[k]
        directions = torch.where(torch.from_numpy(g.random((count, 1)) < 0.5), directions, towards)
        size = directions.norm(dim=1, keepdim=True)
        reach = hulls.clearance[k].clamp_max(1e6) * torch.from_numpy(g.uniform(0, 2, (count, 1)))
        points.append(ends + reach * directions / torch.where(size > 0, size, 1.0))
    return hulls.head.domain.clip(torch.cat(points)) if points else hulls.head.weight[:0]
