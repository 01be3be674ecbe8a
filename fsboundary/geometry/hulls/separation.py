"""Separation of two convex hulls, and of a generator from the hull of the others.

The distance between two hulls is certified on each side by a pass over the generators of that side.
Generators are taken relative to a centre c, which is one of them: each difference is exact up to
one rounding, so nothing is lost where the sets lie far from 0. Let w = p_j - p_i join points of the
two hulls and n = w/|w|. Then ``lower_bound = min_j n.(v - c) - max_i n.(v - c)``, minus its
rounding: each product is off by at most γ |v - c|, and |n| by the factor 1 + γ. The rounding is
subtracted from each product before the largest is taken, so that a generator far away widens no
product but its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.protocols import Moments, PointSet
from fsboundary.core.rows import pad_columns
from fsboundary.core.tolerance import EPS, absolute, dot_error
from fsboundary.geometry.batching import stream_generators
from fsboundary.geometry.hulls.point_sets import LOST, point_set_stats
from fsboundary.geometry.hulls.pricing import price_exact
from fsboundary.geometry.norms import TINY, lengths


@final
class Differences:
    """All differences a - b as a point set: its hull is the Minkowski difference of the two hulls.

    The distance of this hull from 0 is the distance between the two. Nothing is stored: a linear
    function is smallest at the difference of a smallest a and a largest b.

    Parameters
    ----------
    one, other : PointSet
        Sets of n and m points; point ``i * m + j`` is ``one[i] - other[j]``.
    """

    def __init__(self, one: PointSet, other: PointSet) -> None:
        self.one, self.other = one, other
        self.num_features = one.num_features

    @property
    def sides(self) -> tuple[PointSet, PointSet]:
        """The two sets whose differences are the generators."""
        return self.one, self.other

    def __len__(self) -> int:
        return len(self.one) * len(self.other)

    def split(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of `one` and `other` whose differences are at `indices`."""
        rows = indices.div(len(self.other), rounding_mode="floor")
        return rows, indices - rows * len(self.other)

    def take(self, indices: Tensor) -> Tensor:
        """Return the differences at `indices`, each number exact up to one rounding."""
        rows, columns = self.split(indices)
        return self.one.take(rows).to(torch.float64) - self.other.take(columns).to(torch.float64)

    def moments(self) -> Moments:
        """Return the moments; `largest` is the sum of the largest norms.

        The norm of a difference may be much smaller, but products are formed from the two points
        separately, so their rounding depends on the norms of these.
        """
        a, b = point_set_stats(self.one), point_set_stats(self.other)
        squares = (a.scale.square() + b.scale.square()) * len(self)
        return Moments(len(self), a.mean - b.mean, squares, a.largest + b.largest)

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest products (B,k) of each direction, and their indices.

        With E differences excluded, the rest of the k + E smallest contains the result. The sum of
        the r-th smallest of one side and the s-th of the other is no smaller than r s sums, so the
        k + E smallest are among those with r s <= k + E.
        """
        count = k if exclude is None else k + exclude.shape[1]
        low, rows = self.one.price(directions, min(count, len(self.one)))
        high, columns = self.other.price(-directions, min(count, len(self.other)))
        r, s = torch.arange(1, low.shape[1] + 1), torch.arange(1, high.shape[1] + 1)
        r, s = (r[:, None] * s <= count).nonzero(as_tuple=True)
        sums, pairs = low[:, r] + high[:, s], rows[:, r] * len(self.other) + columns[:, s]
        if exclude is not None:
            for row, excluded in enumerate(exclude):
                sums[row, torch.isin(pairs[row], excluded)] = torch.inf
        best, order = sums.sort(dim=1, stable=True)
        indices = torch.where(best < torch.inf, pairs.gather(1, order), -1)
        return pad_columns(best, k, torch.inf), pad_columns(indices, k, -1)


def separation_bounds(
    points: PointSet,
    rows: Int[Tensor, " B"],
    directions: Float64[Tensor, "B d"],
    exclude: Int[Tensor, "B E"],
) -> tuple[Float64[Tensor, " B"], Float64[Tensor, " B"]]:
    """Return bounds (B,), (B,) of the distances of some generators from the hull of all others.

    If ``u.v`` exceeds ``u.w`` by at least m for every other generator w, and |u| = 1, then no
    point of their hull is nearer to v than m. Both products are off by at most γ R, with R the
    largest norm of a generator. The runner-up generator is itself a point of that hull.

    Parameters
    ----------
    points : PointSet
    rows : Tensor (B,)
    directions : Tensor (B, d), float64
        Directions of any length; where it is 0 the lower bound is 0.
    exclude : Tensor (B, E)
        Generators equal to each row, including itself, padded with -1.

    Returns
    -------
    lower, upper : Tensor (B,), float64
        Bounds, +inf where no other generator is left.
    """
    v = points.take(rows).to(torch.float64)
    unit = directions / lengths(directions).clamp_min(TINY)[:, None]
    largest = point_set_stats(points).largest
    priced = price_exact(points, -unit, largest, exclude)
    gamma = dot_error(points.num_features + 16)
    size = largest + LOST * points.num_features**0.5
    separation = torch.linalg.vecdot(unit, v) + priced.best - 2 * gamma * (size + TINY)
    second = points.take(priced.indices[:, 0].clamp_min(0)).to(torch.float64)
    upper = (lengths(v - second) + TINY) * (1 + gamma + 4 * EPS)
    return (
        separation.clamp_min(0.0) * (1 - gamma - 4 * EPS),
        torch.where(priced.indices[:, 0] >= 0, upper, torch.inf),
    )


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
    """Certified separation of two hulls.

    Attributes
    ----------
    points : Tensor (2, d), float64
        Combinations of the two sides.
    midpoint : Tensor (d,), float64
        Midpoint of the two.
    distance, lower_bound : Tensor (), float64
        Bounds of the distance between the hulls, +inf and 0 where numbers overflow.
    atol : Tensor (), float64
        Distance up to which hulls count as intersecting, unless the lower bound is above 0.
    ulp : Tensor (), float64
        Few units in the last place of the supporting points: no bound is tighter.
    normal : Tensor (d,), float64
        Unit direction from the first point to the second; 0 where they are equal.
    offset : Tensor (2,), float64
        Bounds of ``normal . v``, also as computed in float64: at most the first for every generator
        of the first side, and at least the second for every generator of the second.
    """

    points: Tensor
    midpoint: Tensor
    distance: Tensor
    lower_bound: Tensor
    atol: Tensor
    ulp: Tensor
    normal: Tensor
    offset: Tensor


def separate(one: Side, other: Side, hint: Float64[Tensor, " d"] | None = None) -> Separation:
    """Return the separation of two hulls that combinations of their generators prove.

    Parameters
    ----------
    one, other : Side
    hint : Tensor (d,), optional
        A direction from the first hull to the second that may prove a larger bound than that
        between the two combinations.
    """
    centre = one.points.take(one.support[one.weights.argmax()]).to(torch.float64)
    p, slack_p, spread_p, size_p = _combination(one, centre)
    q, slack_q, spread_q, size_q = _combination(other, centre)
    gamma = dot_error(2 * len(centre) + 16)
    length = lengths(q - p)
    normal = ((q - p) / length.clamp_min(TINY)).nan_to_num(0.0, 0.0, 0.0)
    top, bottom = _farthest(one.points, centre, normal), _farthest(other.points, centre, -normal)
    if hint is not None and bool(torch.isfinite(hint).all()):
        ahead, behind = _farthest(one.points, centre, hint), _farthest(other.points, centre, -hint)
        if bool(ahead.exact + behind.exact < top.exact + bottom.exact):
            normal, top, bottom = hint, ahead, behind
    rounding = gamma * (top.exact.abs() + bottom.exact.abs() + TINY)
    lower = (-bottom.exact - top.exact - rounding).nan_to_num(0.0, 0.0, 0.0).clamp_min(0.0)
    shift = torch.linalg.vecdot(normal, centre)
    scale = torch.hypot(point_set_stats(one.points).scale, point_set_stats(other.points).scale)
    scale = torch.minimum(scale.nan_to_num(torch.inf), spread_p + spread_q)
    distance = (length + slack_p + slack_q) * (1 + gamma)
    return Separation(
        points=torch.stack([p, q]) + centre,
        midpoint=(p / 2 + q / 2) + centre,
        distance=distance.nan_to_num(torch.inf),
        lower_bound=lower * (1 - gamma - 4 * EPS),
        atol=torch.maximum(absolute(scale), slack_p + slack_q + gamma * (spread_p + spread_q)),
        ulp=gamma * (size_p + size_q),
        normal=normal,
        offset=torch.stack([top.repeated + shift, -bottom.repeated + shift]),
    )


def _combination(side: Side, centre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the combination minus `centre` (d,), its slack, its spread and its size, () each.

    The slack is its largest distance from the hull, the size the largest |y| of its points.

    With s the exact sum of the weights, Σ a_i y_i / s is in the hull minus the centre. With
    Y = Σ a_i |y_i|, the division moves the sum by at most |1 - s| Y / s; rounding of y, of the sum,
    and of s moves it by γ Y. The spread is Σ a_i |v_i - p|, p the combination.
    """
    y = side.points.take(side.support).to(torch.float64) - centre
    gamma = dot_error(len(side.support) + 16)
    total = side.weights.sum()
    size = side.weights @ lengths(y) + TINY
    away = ((1 - total).abs() / total.clamp_min(0.5) + 2 * gamma) * size
    p = side.weights @ y
    return p, away * (1 + gamma), side.weights @ lengths(y - p), lengths(y).max()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Farthest:
    """Upper bounds () of ``normal . (v - centre)`` over a point set.

    `exact` holds for the exact products, `repeated` also where ``normal . v`` is computed in
    float64.
    """

    exact: Tensor
    repeated: Tensor


def _farthest(points: PointSet, centre: Tensor, normal: Tensor) -> _Farthest:
    """Return bounds of the largest product of `normal` with a point minus `centre`."""
    gamma = dot_error(2 * len(centre) + 16)
    exact = normal.new_tensor(-torch.inf)
    repeated, middle = exact, lengths(centre)
    for v in stream_generators(points):
        value, size = (v - centre) @ normal, lengths(v - centre)
        exact = torch.maximum(exact, (value + gamma * (size + TINY)).max())
        repeated = torch.maximum(repeated, (value + 2 * gamma * (size + 2 * middle + TINY)).max())
    return _Farthest(exact=exact, repeated=repeated)
