"""Hyperplane arrangement of one head in one box, reduced to the features that can vary.

A feature whose limits agree has one value: it moves into the offsets, and balls are measured in
the others. Weights and offsets are multiplied by one power of two, which changes no region.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from fsboundary.core.heads import LinearHead
from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.norms import pair_norms

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

_LARGEST_EXPONENT = 900
"""Offsets stay below 2**900, so that products with features do not overflow at once."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrangement:
    """K logits over f free features.

    Attributes
    ----------
    weight : array (K, f)
        Scaled weights.
    bias, bias_error : array (K,)
        Scaled biases, including the contribution of the fixed features, and a bound of their
        rounding.
    lower, upper : array (f,)
        Limits of the free features; infinite where there is none, ``lower < upper``.
    norms : array (K, K)
        |w_i - w_k| of the scaled weights.
    full_weight, full_bias : array (K, d), (K,)
        Unscaled weights and biases.
    point : array (d,)
        Values of the fixed features; 0 at the free ones.
    free : array (f,)
        Indices of the free features.
    """

    weight: Array
    bias: Array
    bias_error: Array
    lower: Array
    upper: Array
    norms: Array
    full_weight: Array
    full_bias: Array
    point: Array
    free: Index

    @classmethod
    def of(cls, head: LinearHead, lower: Array, upper: Array) -> Arrangement:
        """Return the arrangement of `head` between `lower` and `upper` (d,), on the CPU."""
        full_weight, full_bias = head._weight.cpu().numpy(), head._bias.cpu().numpy()
        free = np.flatnonzero(lower < upper)
        point = np.where(lower < upper, 0.0, lower)
        used = np.flatnonzero(point)
        with np.errstate(over="ignore", invalid="ignore"):  # detected by the certificates
            terms = full_weight[:, used] * point[used]
            bias = full_bias + terms.sum(axis=1)
            error = dot_error(len(used) + 4) * (np.abs(full_bias) + np.abs(terms).sum(axis=1))
        weight = full_weight[:, free]
        down = _exponent(weight)
        if np.isfinite(bias).all():
            down = max(down, _exponent(bias) - _LARGEST_EXPONENT)
        scaled = np.ldexp(weight, -down)
        if not np.array_equal(np.ldexp(scaled, down), weight):
            down, scaled = 0, weight  # a number would underflow
        bias = np.ldexp(bias, -down)
        norms = pair_norms(LinearHead(torch.from_numpy(scaled), None)).numpy()
        return cls(
            weight=scaled,
            bias=bias,
            bias_error=np.ldexp(error, -down) if len(used) else np.zeros_like(bias),
            lower=lower[free],
            upper=upper[free],
            norms=norms,
            full_weight=full_weight,
            full_bias=full_bias,
            point=point,
            free=free,
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.bias)

    @property
    def width(self) -> int:
        """The number f of free features."""
        return len(self.free)

    def lift(self, z: Array) -> Array:
        """Return points (..., d) from free features (..., f)."""
        full = np.broadcast_to(self.point, (*z.shape[:-1], len(self.point))).copy()
        full[..., self.free] = z
        return full

    def equal_rows(self, i: int) -> Mask:
        """Return which classes (K,) have exactly the weights of class `i` in the free features."""
        w = self.full_weight
        same = (w[:, self.free[0]] == w[i, self.free[0]]).nonzero()[0]
        out = np.zeros(len(w), dtype=np.bool_)
        out[same] = (w[np.ix_(same, self.free)] == w[i, self.free]).all(axis=1)
        return out

    def exact_row(self, i: int, k: int) -> list[Fraction]:
        """Return w_i - w_k over the free features, exactly."""
        w = self.full_weight
        return [Fraction(w[i, q]) - Fraction(w[k, q]) for q in self.free.tolist()]

    def exact_offset(self, i: int, k: int) -> Fraction:
        """Return b_i - b_k including the contribution of the fixed features, exactly."""
        w, b, x = self.full_weight, self.full_bias, self.point
        used = np.flatnonzero(x).tolist()
        parts = ((Fraction(w[i, q]) - Fraction(w[k, q])) * Fraction(x[q]) for q in used)
        return Fraction(b[i]) - Fraction(b[k]) + sum(parts, Fraction(0))


def _exponent(values: Array) -> int:
    """Return the exponent e with ``2**(e-1) <= max|values| < 2**e``, 0 if all are 0."""
    return int(np.frexp(np.abs(values).max())[1]) if values.size else 0
