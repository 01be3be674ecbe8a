"""Rounding of bounds: every error is added outward, whatever the order of the sums.

A computed sum of products is the exact sum of the same terms, each times ``1 + e`` with ``|e| <=
gamma_n``, where n counts the roundings on the longest path of a term (Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., section 3.1). So the error is at most gamma_n times the
sum of the absolute terms, also with fused multiply-add, and whatever the order. Only algorithms
that are no such sum (Winograd, Fourier, Strassen) are excluded; torch has none for float64 on the
CPU, where bounds are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.tolerance import EPS, dot_error

SMALLEST = torch.finfo(torch.float64).tiny
"""Smallest normal float64: more than a rounding loses where it underflows, also if flushed to 0."""

_INFLATION = 1 + 2.0**-20
"""Exceeds every ``1 + gamma_n`` for n below 2^32: covers that an error is itself computed."""


def inflate(size: Tensor) -> Tensor:
    """Return an upper bound of a nonnegative number that is computed as `size`, any shape."""
    return size * _INFLATION + SMALLEST


def sum_error(terms: int, size: Tensor) -> Tensor:
    """Return a bound on the error of sums of terms that are rounded `terms` times.

    Parameters
    ----------
    terms : int
        Number of roundings on the longest path of a term, or of terms.
    size : Tensor, any shape
        Computed sums of the absolute terms.
    """
    return inflate(dot_error(terms + 2) * size + terms * SMALLEST)


def below(value: Tensor) -> Tensor:
    """Return numbers below `value` by at least one rounding, any shape."""
    return value - (EPS * value.abs() + SMALLEST)


def above(value: Tensor) -> Tensor:
    """Return numbers above `value` by at least one rounding, any shape."""
    return value + (EPS * value.abs() + SMALLEST)


def pass_error(terms: int, size: Tensor, dtype: torch.dtype) -> Tensor:
    """Return :func:`sum_error` of sums that are computed in another dtype; +inf where it has none.

    Parameters
    ----------
    terms : int
    size : Tensor, any shape, float64
        Upper bounds of the sums of the absolute terms.
    dtype : torch.dtype
        Floating point.
    """
    info = torch.finfo(dtype)
    roundoffs = terms * info.eps / 2
    gamma = roundoffs / (1 - roundoffs) if roundoffs < 0.5 else torch.inf
    # a sum that is larger may overflow
    error = torch.where(size < info.max / 4, inflate(gamma * size), torch.inf)
    return error.nan_to_num(torch.inf, torch.inf, torch.inf)
