"""Distance between two hulls, judged on each side by a pass over its own generators.

All is computed from generators less a centre c, which is one of them: exact up to one rounding
each, so nothing is lost where the sets lie far from 0. Let w = p_j - p_i join points of the two
hulls and n = w/|w|. Then ``lower_bound = min_j n.(v - c) - max_i n.(v - c)``, less its rounding:
with Y_i and Y_j the largest norms of v - c, the two are off by at most γ (Y_i + Y_j), and |n| by
the factor 1 + γ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.core.tolerance import EPS, absolute, dot_error
from fsboundary.geometry.hulls.certify import extent
from fsboundary.geometry.lengths import TINY, lengths
from fsboundary.geometry.streaming import streamed


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """A point set and a convex combination of it: rows (S,) and their weights (S,), Σ = 1."""

    points: PointSet
    support: Tensor
    weights: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Separation:
    """What is certain of two hulls.

    Attributes
    ----------
    points : Tensor (2, d), float64
        The two combinations.
    middle : Tensor (d,), float64
        The point half way between them.
    distance, lower_bound : Tensor (), float64
        Bounds of the distance between the hulls: +inf and 0 where numbers overflow.
    atol : Tensor (), float64
        Hulls no farther apart than this count as meeting.
    normal : Tensor (d,), float64
        Unit direction from the first to the second; 0 where they are the same.
    offset : Tensor (2,), float64
        ``normal . v``, also as computed in float64, is at most the first for every generator of
        the first side, and at least the second for every generator of the second.
    """

    points: Tensor
    middle: Tensor
    distance: Tensor
    lower_bound: Tensor
    atol: Tensor
    normal: Tensor
    offset: Tensor


def separate(one: Side, other: Side) -> Separation:
    """Return what combinations of two point sets prove about their hulls."""
    centre = one.points.take(one.support[one.weights.argmax()]).to(torch.float64)
    p, slack_p = _combination(one, centre)
    q, slack_q = _combination(other, centre)
    gamma = dot_error(2 * len(centre) + 16)
    length = lengths(q - p)
    normal = ((q - p) / length.clamp_min(TINY)).nan_to_num(0.0, 0.0, 0.0)
    top, size_one = _farthest(one.points, centre, normal)
    bottom, size_other = _farthest(other.points, centre, -normal)
    rounding = gamma * (size_one + size_other + TINY)
    lower = (-bottom - top - rounding).nan_to_num(0.0, 0.0, 0.0).clamp_min(0.0)
    shift = torch.linalg.vecdot(normal, centre)
    # what the product of a generator itself is off by, here and in the hands of a reader
    spread = 2 * gamma * (torch.stack([size_one, size_other]) + 2 * lengths(centre) + TINY)
    scale = torch.hypot(extent(one.points).scale, extent(other.points).scale)
    distance = (length + slack_p + slack_q) * (1 + gamma)
    return Separation(
        points=torch.stack([p, q]) + centre,
        middle=(p / 2 + q / 2) + centre,
        distance=distance.nan_to_num(torch.inf),
        lower_bound=lower * (1 - gamma - 4 * EPS),
        atol=torch.maximum(absolute(scale), rounding),
        normal=normal,
        offset=torch.stack([top + shift + spread[0], -bottom + shift - spread[1]]),
    )


def _combination(side: Side, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return the combination less `centre` (d,), and how far () a point of the hull may be.

    With s the exact sum of the weights, Σ a_i y_i / s is in the hull less the centre. With Y the
    largest norm, the division moves the sum by at most |1 - s| Y; rounding of y, of the sum, and
    of s moves it by γ Y.
    """
    y = side.points.take(side.support).to(torch.float64) - centre
    gamma = dot_error(len(side.support) + 16)
    size = lengths(y).max()
    away = ((1 - side.weights.sum()).abs() + 2 * gamma) * (size + TINY)
    return side.weights @ y, away * (1 + gamma)


def _farthest(points: PointSet, centre: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of ``normal . (v - centre)`` and of ``|v - centre|``, () each."""
    most, size = normal.new_tensor(-torch.inf), normal.new_tensor(0.0)
    for v in streamed(points):
        most = torch.maximum(most, ((v - centre) @ normal).max())
        size = torch.maximum(size, lengths(v - centre).max())
    return most, size
