"""Projections of single rows in exact arithmetic, where float64 leaves a row open.

Float64 loses a projection where the numbers of a problem differ much in size: a generator of 1e10
beside others of 1, or a distance of 1e-8 between points of size 1. Here every generator is taken
relative to the row, as integers times a common power of two, so nothing is rounded. Wolfe's method
("Finding the nearest point in a polytope", Math. Programming 11 (1976)) then needs sums, products
and exact divisions only (Bareiss, Math. Comp. 22 (1968)).

The result consists of float64 weights and a float64 direction, which anyone can check: the bound is
the largest product of the direction with a generator, computed exactly where it decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.norms import TINY

Integers = NDArray[Any]
"""An array of Python's integers, which never overflow."""

MAX_SUPPORT = 32
"""Largest support that is solved; elimination takes its cube of products of long integers."""

MAX_NUMBERS = 2**23
"""Largest number of points times coordinates that is read in each round."""

_MAX_ROUNDS = 40
"""Rounds of Wolfe's method, and of passes over all generators."""

_JOINING = 8
"""Generators that join in one round."""

_KEPT = 64
"""Generators of the largest products, which may be computed exactly."""

_LARGEST_EXPONENT = 1000
"""Lengths above two to this power are left open."""

_TILTS = 3
"""Corrections of a direction whose own rounding, times a far generator, spoils the bound."""

_ENOUGH = 1e-9
"""Relative gap at which a bound needs no further improvement."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactProjection:
    """The nearest point of a hull to one row.

    Attributes
    ----------
    support : array (S,)
        Generators, affinely independent.
    weights : array (S,)
        Their weights, rounded to float64.
    point : array (d,)
        Combination with these weights, rounded once.
    normal : array (d,)
        Direction of length 1 up to rounding; 0 where the row is in the hull.
    offset : float
        ``normal . v`` is at most this, exactly, for every generator.
    lower_bound : float
        Bound of the distance that `normal` proves; 0 if it proves none.
    """

    support: NDArray[np.int64]
    weights: Array
    point: Array
    normal: Array
    offset: float
    lower_bound: float


@runtime_checkable
class ReadablePoints(Protocol):
    """Points that can be read, as of a :class:`~fsboundary.core.protocols.PointSet`."""

    @property
    def num_features(self) -> int:
        """Width d."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the points at `indices` (any shape), (..., d)."""
        ...


def project_exactly(
    points: ReadablePoints, query: Tensor, support: Tensor, exclude: Tensor | None
) -> ExactProjection | None:
    """Return the projection of one row, or None where it is too large or numbers overflow.

    Parameters
    ----------
    points : ReadablePoints
    query : Tensor (d,), float64
    support : Tensor (S,)
        Generators to start with, the heaviest first; -1 is ignored.
    exclude : Tensor (E,), optional
        Generators that do not count, -1 as padding.
    """
    if len(points) * points.num_features > MAX_NUMBERS:
        return None
    q = query.cpu().numpy()
    pool: list[int] = support[support >= 0].tolist()
    # no more carry weight than dimensions plus 1; the heaviest come first
    if not pool or (len(pool) > MAX_SUPPORT and points.num_features >= MAX_SUPPORT):
        return None
    pool = pool[:MAX_SUPPORT]
    products = _Products(points, query, exclude)
    start: list[int] = list(range(len(pool)))
    for _ in range(_MAX_ROUNDS):
        generators = points.take(torch.tensor(pool)).to(torch.float64).cpu().numpy()
        shifted, unit = _relative_integers(generators, q)
        nearest = _shortest(shifted, start)
        if nearest is None:
            return None
        corral, weights, x = nearest
        index = np.array(pool)[corral]
        if not x.any():
            return _projection(index, weights, shifted[corral], unit, q, np.zeros(len(q)), None)
        normal = _unit_direction(-x)
        # the product of the normal with the nearest point
        goal = _length(x, Fraction(unit, sum(weights)))
        found = None if goal is None else products.largest(normal)
        if goal is None or found is None:
            return None
        goal = -goal
        # rounding of the normal may hide which side a generator is on; x itself decides
        level = int(x @ x) * unit / sum(weights)
        new = [i for i in found.above(goal * (1 - _ENOUGH)) if i not in pool]
        beyond = [i for i in new if products.exactly(i, x) < level][:_JOINING]
        if not beyond:
            best, exact = _tilted(products, normal, found.bound, generators[corral] - q, goal)
            return _projection(index, weights, shifted[corral], unit, q, best, exact)
        # the corral stays first: the next round starts with it
        pool = [*index.tolist(), *beyond]
        start = list(range(len(corral)))
    return None


def _projection(
    index: NDArray[Any],
    weights: list[int],
    shifted: Integers,
    unit: Fraction,
    query: Array,
    normal: Array,
    bound: Fraction | None,
) -> ExactProjection | None:
    """Return the projection with its weights and numbers rounded to float64."""
    total = sum(weights)
    rounded = np.array([weight / total for weight in weights])
    shares = [Fraction(weight) for weight in rounded.tolist()]
    away = [
        sum((a * int(y) for a, y in zip(shares, column, strict=True)), Fraction(0)) / sum(shares)
        for column in shifted.T
    ]
    lower, offset = 0.0, 0.0
    try:
        point = [float(a * unit + Fraction(b)) for a, b in zip(away, query.tolist(), strict=True)]
        if bound is not None:
            reach = sum(
                (Fraction(a) * Fraction(b) for a, b in zip(normal.tolist(), query, strict=True)),
                Fraction(0),
            )
            offset = float(reach + bound)
            if Fraction(offset) < reach + bound:
                offset = math.nextafter(offset, math.inf)
            # where float64 has no number between the two, nothing is proved that can be checked
            if Fraction(offset) < reach:
                length = float(np.linalg.norm(normal)) * (1 + dot_error(len(normal) + 8))
                lower = max(0.0, float(-bound) / length * (1 - 8 * EPS))
    except OverflowError:
        return None
    return ExactProjection(
        support=index,
        weights=rounded,
        point=np.array(point),
        normal=normal,
        offset=offset,
        lower_bound=lower if lower >= TINY else 0.0,
    )


def _relative_integers(values: Array, query: Array) -> tuple[Integers, Fraction]:
    """Return integers (n,d) and a power of two whose product is ``values - query`` exactly."""
    mantissa, exponent = np.frexp(np.vstack([values, query[None]]))
    whole = (mantissa * 2.0**53).astype(np.int64)
    lowest = int(exponent[whole != 0].min(initial=0))
    shift = np.where(whole != 0, exponent - lowest, 0)
    table = np.array(
        [
            [m << s for m, s in zip(*row, strict=True)]
            for row in zip(whole.tolist(), shift.tolist(), strict=True)
        ],
        dtype=object,
    ).reshape(len(values) + 1, len(query))
    return table[:-1] - table[-1], Fraction(2) ** (lowest - 53)


def _shortest(points: Integers, start: list[int]) -> tuple[list[int], list[int], Integers] | None:
    """Return a corral, its weights and x: the least norm in the hull of `points` (n,d).

    Weights are positive integers; x is their sum of the points, not divided by their total. None
    where the corral is too large.

    Parameters
    ----------
    points : array (n, d) of int
    start : list of int
        Points that may be the corral already.
    """
    gram = points @ points.T
    corral, weights = [int(min(range(len(points)), key=lambda k: gram[k, k]))], [1]
    if 1 < len(start) <= MAX_SUPPORT:
        guess = _affine_weights(gram[np.ix_(start, start)])
        if guess is not None and min(guess) > 0:
            corral, weights = list(start), guess
    for _ in range(_MAX_ROUNDS * MAX_SUPPORT):
        x = np.array(weights, dtype=object) @ points[corral]
        values, squared, total = points @ x, x @ x, sum(weights)
        best = int(min(range(len(points)), key=lambda k: values[k]))
        if values[best] * total >= squared:
            return corral, weights, x
        corral, weights = [*corral, best], [*weights, 0]
        while True:
            if len(corral) > MAX_SUPPORT:
                return None
            affine = _affine_weights(gram[np.ix_(corral, corral)])
            if affine is None:
                return None
            if min(affine) > 0:
                weights = affine
                break
            corral, weights = _step_to_border(corral, weights, affine)
    return None


def _step_to_border(
    corral: list[int], weights: list[int], affine: list[int]
) -> tuple[list[int], list[int]]:
    """Move from `weights` towards `affine` until one vanishes; return those that are left."""
    old, new = sum(weights), sum(affine)
    # over the common denominator of the two
    now, aim = [w * new for w in weights], [a * old for a in affine]
    step = min(Fraction(w, w - a) for w, a in zip(now, aim, strict=True) if a <= 0)
    up, down = step.numerator, step.denominator
    moved = [w * (down - up) + a * up for w, a in zip(now, aim, strict=True)]
    divisor = math.gcd(*moved)
    left = [(k, m // divisor) for k, m in zip(corral, moved, strict=True) if m > 0]
    return [k for k, _ in left], [m for _, m in left]


def _affine_weights(gram: Integers) -> list[int] | None:
    """Return the weights, times a positive integer, of the affine hull's point of least norm.

    They solve ``(G + c 11ᵀ) x = 1`` for any c > 0. None where points are affinely dependent.
    """
    n = len(gram)
    shift = max(int(gram[k, k]) for k in range(n)) or 1
    rows = [[int(value) + shift for value in row] + [1] for row in gram]
    previous = 1
    for i in range(n):
        pivot = rows[i][i]
        if pivot <= 0:
            return None
        for k in range(i + 1, n):
            factor = rows[k][i]
            rows[k] = [
                (pivot * a - factor * b) // previous if j > i else 0
                for j, (a, b) in enumerate(zip(rows[k], rows[i], strict=True))
            ]
        previous = pivot
    last = rows[n - 1][n - 1]
    x = [0] * n
    for i in reversed(range(n)):
        rest = sum(rows[i][k] * x[k] for k in range(i + 1, n))
        x[i] = (last * rows[i][n] - rest) // rows[i][i]
    divisor = math.gcd(*x)
    return [value // divisor for value in x]


def _unit_direction(x: Integers) -> Array:
    """Return `x` (d,) divided by its length, in float64."""
    down = max(abs(int(value)).bit_length() for value in x) - 60
    scale = Fraction(2) ** -down
    direction = np.array([float(int(value) * scale) for value in x])
    return np.asarray(direction / np.linalg.norm(direction))


def _length(x: Integers, unit: Fraction) -> float | None:
    """Return |x| times `unit`, to nearly all digits, or None where it overflows."""
    squared = int(x @ x) * unit * unit
    shift = (squared.numerator.bit_length() - squared.denominator.bit_length()) // 2
    root = math.sqrt(squared / Fraction(4) ** shift)
    return math.ldexp(root, shift) if shift < _LARGEST_EXPONENT else None


@final
class _Products:
    """Products of a direction with every generator minus the row."""

    def __init__(self, points: ReadablePoints, query: Tensor, exclude: Tensor | None) -> None:
        self.points, self.query = points, query
        self.exclude = None if exclude is None else exclude[exclude >= 0].cpu()

    def largest(self, direction: Array) -> _Largest | None:
        """Return the largest products with `direction` (d,), or None where numbers overflow."""
        n = torch.from_numpy(direction).to(self.query.device)
        gamma = dot_error(len(direction) + 8)
        best: list[Tensor] = []
        for part in chunks(len(self.points), chunk_rows(self.points.num_features, 4096)):
            index = torch.arange(part.start, part.stop)
            away = self.points.take(index).to(torch.float64) - self.query
            value = away @ n
            doubt = gamma * (away.abs() @ n.abs() + TINY)
            high = value + doubt
            if not bool(torch.isfinite(high).all()):
                return None
            table = torch.stack([high, value, doubt, index.to(high)])
            if self.exclude is not None and len(self.exclude):
                table = table[:, ~torch.isin(index, self.exclude).to(high.device)]
            best.append(table)
            if sum(part.shape[1] for part in best) > 4 * _KEPT:
                best = [_top(torch.cat(best, dim=1), _KEPT + 1)]
        table = _top(torch.cat(best, dim=1), _KEPT + 1).cpu()
        if table.shape[1] == 0:
            return None
        return _Largest(table, self, direction)

    def exactly(self, index: int, direction: Array | Integers) -> Fraction:
        """Return the product of `direction` with one generator minus the row."""
        v = self.points.take(torch.tensor([index])).to(torch.float64)[0].tolist()
        terms = zip(direction.tolist(), v, self.query.tolist(), strict=True)
        return sum((Fraction(n) * (Fraction(a) - Fraction(b)) for n, a, b in terms), Fraction(0))


def _top(table: Tensor, count: int) -> Tensor:
    """Return the `count` columns of `table` (4,m) with the largest first entries, descending."""
    return table[:, table[0].argsort(descending=True, stable=True)[:count]]


@final
class _Largest:
    """The largest products, descending by their upper bounds, and an exact bound of all."""

    def __init__(self, table: Tensor, products: _Products, direction: Array) -> None:
        high, self._value, _, index = table
        self._index = index.long()
        best: Fraction | None = None
        for k, upper in enumerate(high[:_KEPT].tolist()):
            if best is not None and Fraction(upper) <= best:
                break
            exact = products.exactly(int(self._index[k]), direction)
            best = exact if best is None else max(best, exact)
        else:
            if len(high) > _KEPT:
                best = max(best, Fraction(float(high[_KEPT]))) if best is not None else None
        assert best is not None  # the table is not empty
        self.bound: Fraction = best

    def above(self, goal: float) -> list[int]:
        """Return the generators whose products are above `goal`, the largest first."""
        order = self._value.argsort(descending=True, stable=True)
        over = order[self._value[order] > goal]
        return [int(k) for k in self._index[over].tolist()]


def _tilted(
    products: _Products, normal: Array, bound: Fraction, corral: Array, goal: float
) -> tuple[Array, Fraction]:
    """Return the direction with the least bound, among `normal` and corrections of it.

    The rounding of a direction times a generator far away may be larger than the distance. The
    direction is turned away from such generators by a few units in its last place, which costs the
    generators nearby nothing.
    """
    best, direction = (normal, bound), normal
    for _ in range(_TILTS):
        if best[1] <= Fraction(goal * (1 - _ENOUGH)):
            break
        size = np.linalg.norm(corral, axis=1)
        excess = corral @ direction - goal
        far = size * EPS * len(normal) > _ENOUGH * abs(goal)
        if not far.any():
            break
        turn = np.where(far, np.maximum(excess, 0.0) + len(normal) * EPS * size, 0.0)
        direction = direction - (turn / size**2) @ corral
        direction = direction / np.linalg.norm(direction)
        found = products.largest(direction)
        if found is not None and found.bound < best[1]:
            best = direction, found.bound
    return best
