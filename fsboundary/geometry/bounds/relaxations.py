"""Linear bounds of one-dimensional functions on intervals, proved there.

A line ``a x + b`` bounds a function f from below on [l, u] if the least value of ``f(x) - a x`` is
at least b. Slopes are only proposed (secants and the slopes of pieces); the offset of each is then
proved:

- piecewise linear functions: the least value is at an end or at a knot;
- smooth functions: between two points at distance h, a function whose second derivative is at
  most C in absolute value lies at most ``C h^2 / 8`` below the chord of its values, so the least
  value on a grid that contains both ends, less that, is a proof.

Both are lowered by the rounding of the evaluation. Of several lines the highest in the middle of
the interval is taken, which leaves the smallest area between line and function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.tolerance import EPS

_PIECES = 64
_SECANTS = 8
"""Pieces of the grid on which offsets are proved, and of that whose secants are slopes."""

_LIBRARY_ERROR = 32
"""Error of an evaluated function, in units of the last place of 1 + |x| + |f(x)|: exp, tanh, erf
and log1p of torch have a few units in the last place, and each function here takes at most four
operations after them."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """A function of one variable, with what the proofs use.

    Attributes
    ----------
    evaluate : callable
        The function of a float64 tensor.
    knots : tuple of float
        Points where a piecewise linear function has another slope.
    slopes : tuple of float
        Slopes of its pieces.
    curvature : float
        Upper bound of the absolute second derivative; 0 for piecewise linear functions.
    least : (float, float), optional
        Where a function that first falls and then rises is smallest, and a lower bound of it;
        None for functions that never fall.
    slack : float
        Upper bound by which the function of torch may be lower than `evaluate` where its argument
        is at least `slack_from`.
    slack_from : float
    lipschitz : float
        Upper bound of the absolute first derivative of a function with curvature.
    largest_exponent : float
        Largest argument of an exponential whose overflow would be the value of the function.
    """

    evaluate: Callable[[Tensor], Tensor]
    knots: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    curvature: float = 0.0
    least: tuple[float, float] | None = None
    slack: float = 0.0
    slack_from: float = torch.inf
    lipschitz: float = 1.0
    largest_exponent: float = 0.0

    @property
    def steepest(self) -> float:
        """Upper bound of the absolute slope between any two points, except for `slack`."""
        return self.lipschitz if self.curvature else max(map(abs, self.slopes))

    def error(self, x: Tensor, value: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return a bound on the error of `value`, computed in `dtype` at `x`.

        It does not fall where the absolute values of `x` and `value` grow.
        """
        info = torch.finfo(dtype)
        if self.curvature:
            own = _LIBRARY_ERROR * info.eps * (1 + x.abs() + value.abs())
        elif self._is_exact(dtype):
            own = torch.zeros_like(value)
        else:
            own = 4 * info.eps * value.abs()
        return own + info.tiny

    def _is_exact(self, dtype: torch.dtype) -> bool:
        """Return whether a piecewise linear function only selects numbers of `dtype`, or signs."""
        stored = dtype == torch.float64 or (
            dtype == torch.float32 and all(float(np.float32(k)) == k for k in self.knots)
        )
        return stored and {*map(abs, self.slopes)} <= {0.0, 1.0}


class Lines(NamedTuple):
    """Lines below and above a function on intervals; each field has their shape.

    Attributes
    ----------
    low_slope, low_offset : Tensor
        ``low_slope * x + low_offset`` is at most the function, in exact arithmetic.
    high_slope, high_offset : Tensor
        The same from above.
    """

    low_slope: Tensor
    low_offset: Tensor
    high_slope: Tensor
    high_offset: Tensor


def range_of(function: Activation, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return limits of `function` on the intervals from `low` to `high`, any shape."""
    ends = [function.evaluate(low), function.evaluate(high)]
    errors = [function.error(x, y) for x, y in zip((low, high), ends, strict=True)]
    bottom = torch.minimum(ends[0] - errors[0], ends[1] - errors[1])
    # a function that falls and then rises is largest at an end
    top = torch.maximum(ends[0] + errors[0], ends[1] + errors[1])
    if function.least is not None:
        place, value = function.least
        inside = (low <= place + _NEAR) & (high >= place - _NEAR)
        bottom = torch.where(inside, value, bottom)
    return torch.where(high > function.slack_from, bottom - function.slack, bottom), top


_NEAR = 1e-6
"""Half of the interval around a listed minimiser that contains the exact one."""


def lines_of(function: Activation, low: Tensor, high: Tensor) -> Lines:
    """Return lines that bound `function` on the intervals from `low` to `high`, any shape."""
    x = _points(function, low, high)
    y = function.evaluate(x)
    slopes = _slopes(function, x, y)
    width = high - low
    # points are rounded, so pieces may be longer by a few roundings of their ends
    step = width * ((1 + 1e-9) / _PIECES) + 16 * EPS * x.abs().amax(dim=0)
    sag = function.curvature * step.square() / 8 * (1 + 1e-9)
    middle = low + width / 2
    bottom, top = range_of(function, low, high)
    error = function.error(x, y)
    below = _best(slopes, x, y, error, sag, middle, bottom)
    slack = torch.where(high > function.slack_from, function.slack, 0.0)
    above = _best(-slopes, x, -y, error, sag, middle, -top)
    return Lines(below[0], below[1] - slack * (1 + 1e-9), -above[0], -above[1])


def _points(function: Activation, low: Tensor, high: Tensor) -> Tensor:
    """Return points (P, ...) at which offsets are proved; the first and last are the ends."""
    if not function.curvature:
        knots = [torch.minimum(torch.full_like(low, k).maximum(low), high) for k in function.knots]
        return torch.stack([low, *knots, high])
    t = torch.linspace(0, 1, _PIECES + 1, dtype=torch.float64)
    x = low + (high - low) * t.reshape(-1, *[1] * low.dim())
    x = torch.minimum(torch.maximum(x, low), high)
    x[-1] = high
    return x


def _slopes(function: Activation, x: Tensor, y: Tensor) -> Tensor:
    """Return slopes (S, ...) of lines to try, of which the first is that of the chord."""
    ends = torch.stack([_secant(x[0], x[-1], y[0], y[-1])])
    if not function.curvature:
        shape = (-1, *[1] * (x.dim() - 1))
        pieces = torch.tensor(function.slopes, dtype=torch.float64).reshape(shape)
        return torch.cat([ends, pieces.expand(-1, *x.shape[1:])])
    every = _PIECES // _SECANTS
    return torch.cat([ends, _secant(x[:-every:every], x[every::every], y[:-every:every],
                                    y[every::every])])  # fmt: skip


def _secant(x: Tensor, other_x: Tensor, y: Tensor, other_y: Tensor) -> Tensor:
    width = other_x - x
    return torch.where(width > 0, (other_y - y) / width, 0.0).nan_to_num(0.0, 0.0, 0.0)


def _best(
    slopes: Tensor, x: Tensor, y: Tensor, error: Tensor, sag: Tensor, middle: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor]:
    """Return slope and offset of the line below the points that is highest in the middle.

    The horizontal line at `floor`, a lower bound of the function, is one of them.
    """
    slope, offset = torch.zeros_like(middle), floor
    best = offset
    for a in slopes:
        part = a * x
        rest = y - part - (error + 2 * EPS * (y.abs() + 2 * part.abs()))
        b = rest.amin(dim=0) - sag
        b = b - 4 * EPS * b.abs()
        value = a * middle + b
        better = value > best
        slope, offset = torch.where(better, a, slope), torch.where(better, b, offset)
        best = torch.where(better, value, best)
    return slope, offset
