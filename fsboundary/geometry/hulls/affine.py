"""The affine hull of a point set: dimension, directions and distances of points from it.

The singular values of the centred points come from a QR factorisation of one chunk after
the other (TSQR; Demmel, Grigori, Hoemmen and Langou, SIAM J. Sci. Comput. 34 (2012)). A covariance
would square their ratio, and lose everything below 1e-8 of the largest.

The factorisation is not a certificate. With A (n,d) the centred points, Q (d,r) the computed basis
and D the first r computed singular values:

- ``σ_(r+1)(A) <= |A - A Q Qᵀ|`` for any Q, because A Q Qᵀ has rank r (Eckart and Young);
- ``σ_r(A) >= σ_min(A Q / D) D_r / |Q|``, and with G the Gram matrix of A Q / D, which is nearly the
  identity, ``σ_min² >= 1 - |G - 1|``;
- with P = 1 - Q Qᵀ and any m, every p in the hull has ``|P| |z - p| >= |P(z - m)| - |P(p - m)|``,
  and the last is at most the largest over the generators, the thickness. So residual minus
  thickness is a lower bound of the distance to the hull, however well Q spans the affine hull.

All norms are Frobenius norms or larger than the spectral norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.core.rows import pad_columns
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import stream_generators
from fsboundary.geometry.norms import TINY, lengths


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffineHull:
    """An affine hull, in units in which the generators spread by about 1.

    Attributes
    ----------
    origin : Tensor (d,), float64
        Generator that is subtracted first; it is known exactly, so that nothing is lost where the
        generators lie far from 0.
    unit : Tensor (), float64
        Power of two that converts feature units to these units.
    offset : Tensor (d,), float64
        Mean of the generators minus `origin`.
    values : Tensor (d,), float64
        Singular values of the centred generators, descending; NaN where they overflow.
    basis : Tensor (d, r), float64
        Orthonormal directions of the first r singular values.
    """

    origin: Tensor
    unit: Tensor
    offset: Tensor
    values: Tensor
    basis: Tensor

    def centre(self, z: Tensor) -> Tensor:
        """Return `z` (B,d) minus the mean, in these units."""
        return (z - self.origin) * self.unit - self.offset

    def residual(self, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Return |P x| (B,), with `along` = x Q, and a bound of its rounding (B,).

        x = z - m itself is off by at most 2 ε (|x| + |m|), and Q Qᵀ x by at most √r times
        (γ_d + γ_r) |x|, because the squares of the entries of Q sum to r.
        """
        away = lengths(x - along @ self.basis.T)
        size = (3 + self.basis.shape[1] ** 0.5) * lengths(x) + away
        return away, self.gamma * (size + lengths(self.offset) + TINY)

    def outward_directions(self, z: Tensor) -> Tensor:
        """Return the gradients (B,d) of the Mahalanobis distance, up to their lengths.

        Among the directions that need no search, these most often have the generator `z` farthest
        out.
        """
        size = self.values[: self.basis.shape[1]]
        return (self.centre(z) @ self.basis / (size / size[:1]).square()) @ self.basis.T

    @property
    def gamma(self) -> float:
        """Rounding of a product with the basis and back."""
        return dot_error(2 * sum(self.basis.shape) + 16)

    @property
    def orthogonality_error(self) -> Tensor:
        """Upper bound () of ``|QᵀQ - 1|``."""
        rank = self.basis.shape[1]
        gram = self.basis.T @ self.basis - torch.eye(rank, dtype=torch.float64)
        size: Tensor = torch.linalg.vector_norm(gram)
        return size * (1 + self.gamma * rank) + self.gamma * rank

    def distance_bounds(self, z: Tensor, thickness: Tensor) -> tuple[Tensor, Tensor]:
        """Return |P(z - m)| (B,) and a lower bound (B,) of the distance of `z` to the hull."""
        x = self.centre(z)
        away, rounding = self.residual(x, x @ self.basis)
        factor = self.orthogonality_error.clamp_min(1.0)
        bound = (away - rounding - thickness).clamp_min(0.0) / factor
        # rows so far out that their length overflows prove nothing
        bound = torch.nan_to_num(bound * (1 - 4 * EPS), nan=0.0, posinf=0.0)
        return away / self.unit, self.to_lower_bound(bound)

    def to_lower_bound(self, bound: Tensor) -> Tensor:
        """Return a lower bound in feature units, exact except for the smallest numbers."""
        converted = bound / self.unit
        return torch.where(converted < TINY, 0.0, converted)

    def to_upper_bound(self, bound: Tensor) -> Tensor:
        """Return an upper bound in feature units."""
        converted = bound / self.unit
        return torch.where((converted < TINY) & (bound > 0), TINY, converted)


def fit_affine_hull(points: PointSet, tolerance: float) -> AffineHull:
    """Return the affine hull of `points`, from two streamed passes.

    Parameters
    ----------
    points : PointSet
    tolerance : float
        Fraction of the norm of all singular values above which a direction counts.
    """
    d = points.num_features
    origin = points.take(torch.zeros(1, dtype=torch.int64)).to(torch.float64)[0]
    total, spread = torch.zeros_like(origin), origin.new_zeros(())
    for v in stream_generators(points):
        total = total + ((v - origin) / len(points)).sum(dim=0)
        spread = torch.maximum(spread, lengths(v - origin).max())
    power = torch.frexp(spread).exponent.clamp(-1000, 1000)
    unit = torch.ldexp(torch.ones_like(spread), -power)
    hull = AffineHull(
        origin=origin,
        unit=unit,
        offset=total * unit,
        values=torch.full_like(origin, torch.nan),
        basis=origin.new_zeros(d, 0),
    )
    if not bool(torch.isfinite(spread)):
        return hull
    triangle = origin.new_zeros(0, d)
    for v in stream_generators(points):
        triangle = torch.linalg.qr(torch.cat([triangle, hull.centre(v)]), mode="r").R
    _, sizes, directions = torch.linalg.svd(triangle, full_matrices=False)
    values = pad_columns(sizes, d, 0)
    # at most n - 1 of the centred points are independent
    rank = min(int((values > tolerance * lengths(values)).sum()), len(points) - 1)
    return AffineHull(
        origin=origin,
        unit=unit,
        offset=hull.offset,
        values=values,
        basis=directions[:rank].T.contiguous(),
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingularValueBounds:
    """Certified bounds, each (), float64, in the units of the affine hull.

    Attributes
    ----------
    thickness : Tensor
        Upper bound of the distances of the generators from the affine hull.
    last_lower : Tensor
        Lower bound of σ_r; +inf where r is 0.
    next_upper : Tensor
        Upper bound of σ_(r+1); 0 where there is none.
    norm_lower, norm_upper : Tensor
        Bounds of the norm of all singular values.
    """

    thickness: Tensor
    last_lower: Tensor
    next_upper: Tensor
    norm_lower: Tensor
    norm_upper: Tensor


def bound_singular_values(points: PointSet, hull: AffineHull) -> SingularValueBounds:
    """Return the bounds that one streamed pass over the generators proves for `hull`."""
    n, rank = len(points), hull.basis.shape[1]
    zero = hull.offset.new_zeros(())
    thickness, rest, lower, upper, off, lost = zero, zero, zero, zero, zero, zero
    gram, sums, total = (
        hull.basis.new_zeros(rank, rank),
        hull.basis.new_zeros(rank),
        hull.offset * 0,
    )
    for v in stream_generators(points):
        x = hull.centre(v)
        along = x @ hull.basis
        away, rounding = hull.residual(x, along)
        size = lengths(x)
        # the error of x itself, and of each entry of x Q
        error = hull.gamma * (2 * size + lengths(hull.offset) + TINY)
        thickness = torch.maximum(thickness, (away + rounding).max())
        rest = rest + (away + rounding).square().sum()
        lower = lower + (size - error).clamp_min(0.0).square().sum()
        upper = upper + (size + error).square().sum()
        off, lost = off + error.square().sum(), lost + size.sum()
        scaled = along / hull.values[:rank]
        gram, sums, total = gram + scaled.T @ scaled, sums + scaled.sum(dim=0), total + x.sum(dim=0)
    gamma, root = dot_error(n + 64), n**0.5
    mean = (lengths(total) + gamma * lost + root * off.sqrt()) * (1 + gamma)
    lower = (lower * (1 - 2 * gamma) - (mean / root).square() * (1 + gamma)).clamp_min(0.0).sqrt()
    # `upper` is 0 where all generators are equal: the squares of the rounding underflow
    none = rank in (n - 1, points.num_features) or bool(upper == 0)
    return SingularValueBounds(
        thickness=thickness * (1 + 4 * EPS),
        last_lower=_last_lower(hull, gram, sums, off.sqrt(), n),
        next_upper=zero if none else rest.sqrt() * (1 + gamma),
        norm_lower=lower * (1 - 4 * EPS),
        norm_upper=upper.sqrt() * (1 + gamma),
    )


def _last_lower(hull: AffineHull, gram: Tensor, sums: Tensor, error: Tensor, count: int) -> Tensor:
    """Return a lower bound () of σ_r.

    The rows b of A Q / D are off by e, and the squares of the e sum to at most `error`² times
    Σ 1/D². So their Gram matrix is off by at most 2 |B||e| + |e|² and the rounding of its sums,
    γ_n |B|²; likewise their sum by √n (|e| + γ_n |B|).
    """
    rank = hull.basis.shape[1]
    if rank == 0:
        return torch.full_like(error, torch.inf)
    gamma, root = dot_error(count + 64), count**0.5
    size = (gram.trace() * (1 + 2 * gamma)).sqrt()
    off = error * lengths(1 / hull.values[:rank]) * (1 + gamma) + gamma * size
    shift = lengths(sums) / root
    centred = gram - sums[:, None] * sums / count - torch.eye(rank, dtype=torch.float64)
    doubt = 2 * (size + off) * off + 2 * (shift + off) * off + gamma * size.square()
    apart: Tensor = torch.linalg.vector_norm(centred)
    away = apart * (1 + dot_error(rank**2 + 16)) + doubt
    smallest: Tensor = (1 - away).clamp_min(0.0).sqrt() * hull.values[rank - 1]
    return smallest / (1 + hull.orthogonality_error).sqrt() * (1 - 8 * EPS)
