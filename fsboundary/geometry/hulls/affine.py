"""The affine hull of a point set: its dimension, its directions, how far points lie from it.

The singular values of the points less their mean come from a QR factorisation of one chunk after
the other (TSQR; Demmel, Grigori, Hoemmen and Langou, SIAM J. Sci. Comput. 34 (2012)). A covariance
would square their ratio, and lose everything below 1e-8 of the largest.

What the factorisation says is only proposed. With A (n,d) the points less their mean, Q (d,r) the
basis and D the first r singular values, as found:

- ``σ_(r+1)(A) <= |A - A Q Qᵀ|``, whatever Q is, as A Q Qᵀ has rank r (Eckart and Young);
- ``σ_r(A) >= σ_min(A Q / D) D_r / |Q|``, and with G the Gram matrix of A Q / D, which is nearly the
  identity, ``σ_min² >= 1 - |G - 1|``;
- with P = 1 - Q Qᵀ and any m, every p in the hull has ``|P| |z - p| >= |P(z - m)| - |P(p - m)|``,
  and the last is at most the largest over the generators, the thickness. So residual less
  thickness is a lower bound of the distance to the hull, however well Q spans the affine hull.

All norms are Frobenius norms or larger than the spectral norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.protocols import PointSet
from fsboundary.core.tolerance import EPS, dot_error
from fsboundary.geometry.batching import streamed
from fsboundary.geometry.norms import TINY, lengths


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flat:
    """A point and directions, in units in which the generators spread by about 1.

    Attributes
    ----------
    origin : Tensor (d,), float64
        A generator: subtracted first, and exactly known, so that nothing is lost where the
        generators lie far from 0.
    unit : Tensor (), float64
        The power of two that turns feature units into these.
    offset : Tensor (d,), float64
        Mean of the generators less `origin`.
    values : Tensor (d,), float64
        Singular values of the generators less their mean, descending; NaN where they overflow.
    basis : Tensor (d, r), float64
        Orthonormal directions of the first r.
    """

    origin: Tensor
    unit: Tensor
    offset: Tensor
    values: Tensor
    basis: Tensor

    def centred(self, z: Tensor) -> Tensor:
        """Return `z` (B,d) less the mean."""
        return (z - self.origin) * self.unit - self.offset

    def residual(self, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Return |P x| (B,), with `along` = x Q, and a bound of its rounding (B,).

        x = z - m itself is off by at most 2 ε (|x| + |m|), and Q Qᵀ x by at most √r times
        (γ_d + γ_r) |x|, as the entries of Q have the squared sum r.
        """
        away = lengths(x - along @ self.basis.T)
        size = (3 + self.basis.shape[1] ** 0.5) * lengths(x) + away
        return away, self.gamma * (size + lengths(self.offset) + TINY)

    def outward(self, z: Tensor) -> Tensor:
        """Return the gradients (B,d) of the Mahalanobis distance, up to their lengths.

        Of all directions that cost no search, these most often have a generator `z` farthest out.
        """
        size = self.values[: self.basis.shape[1]]
        return (self.centred(z) @ self.basis / (size / size[:1]).square()) @ self.basis.T

    @property
    def gamma(self) -> float:
        """Rounding of a product with the basis and back."""
        return dot_error(2 * sum(self.basis.shape) + 16)

    @property
    def skew(self) -> Tensor:
        """A number () that ``|QᵀQ - 1|`` does not exceed."""
        rank = self.basis.shape[1]
        gram = self.basis.T @ self.basis - torch.eye(rank, dtype=torch.float64)
        size: Tensor = torch.linalg.vector_norm(gram)
        return size * (1 + self.gamma * rank) + self.gamma * rank

    def beyond(self, z: Tensor, thickness: Tensor) -> tuple[Tensor, Tensor]:
        """Return |P(z - m)| (B,) and a lower bound (B,) of the distance of `z` to the hull."""
        x = self.centred(z)
        away, rounding = self.residual(x, x @ self.basis)
        bound = (away - rounding - thickness).clamp_min(0.0) / self.skew.clamp_min(1.0)
        # rows so far out that their length overflows prove nothing
        bound = torch.nan_to_num(bound * (1 - 4 * EPS), nan=0.0, posinf=0.0)
        return away / self.unit, self.at_least(bound)

    def at_least(self, bound: Tensor) -> Tensor:
        """Return a lower bound in feature units: exact, but for the smallest numbers."""
        there = bound / self.unit
        return torch.where(there < TINY, 0.0, there)

    def at_most(self, bound: Tensor) -> Tensor:
        """Return an upper bound in feature units."""
        there = bound / self.unit
        return torch.where((there < TINY) & (bound > 0), TINY, there)


def flat_of(points: PointSet, tolerance: float) -> Flat:
    """Return the affine hull of `points`, from two streamed passes.

    Parameters
    ----------
    points : PointSet
    tolerance : float
        A direction counts if its singular value is above this share of the norm of all.
    """
    d = points.num_features
    origin = points.take(torch.zeros(1, dtype=torch.int64)).to(torch.float64)[0]
    total, spread = torch.zeros_like(origin), origin.new_zeros(())
    for v in streamed(points):
        total = total + ((v - origin) / len(points)).sum(dim=0)
        spread = torch.maximum(spread, lengths(v - origin).max())
    power = torch.frexp(spread).exponent.clamp(-1000, 1000)
    unit = torch.ldexp(torch.ones_like(spread), -power)
    flat = Flat(
        origin=origin,
        unit=unit,
        offset=total * unit,
        values=torch.full_like(origin, torch.nan),
        basis=origin.new_zeros(d, 0),
    )
    if not bool(torch.isfinite(spread)):
        return flat
    triangle = origin.new_zeros(0, d)
    for v in streamed(points):
        triangle = torch.linalg.qr(torch.cat([triangle, flat.centred(v)]), mode="r").R
    _, found, directions = torch.linalg.svd(triangle, full_matrices=False)
    values = torch.nn.functional.pad(found, (0, d - len(found)))
    # less than n points less their mean are independent
    rank = min(int((values > tolerance * lengths(values)).sum()), len(points) - 1)
    return Flat(
        origin=origin,
        unit=unit,
        offset=flat.offset,
        values=values,
        basis=directions[:rank].T.contiguous(),
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """What is certain of a flat and the generators, each (), float64, in the units of the flat.

    Attributes
    ----------
    thickness : Tensor
        No generator is farther from the flat.
    kept : Tensor
        Lower bound of σ_r; +inf where r is 0.
    rest : Tensor
        Upper bound of σ_(r+1); 0 where there is none.
    least, most : Tensor
        Bounds of the norm of all singular values.
    """

    thickness: Tensor
    kept: Tensor
    rest: Tensor
    least: Tensor
    most: Tensor


def spread_of(points: PointSet, flat: Flat) -> Spread:
    """Return what one streamed pass over the generators proves of `flat`."""
    n, rank = len(points), flat.basis.shape[1]
    zero = flat.offset.new_zeros(())
    thickness, rest, least, most, off, lost = zero, zero, zero, zero, zero, zero
    gram, sums, total = (
        flat.basis.new_zeros(rank, rank),
        flat.basis.new_zeros(rank),
        flat.offset * 0,
    )
    for v in streamed(points):
        x = flat.centred(v)
        along = x @ flat.basis
        away, rounding = flat.residual(x, along)
        size = lengths(x)
        # of x itself, and of each entry of x Q
        error = flat.gamma * (2 * size + lengths(flat.offset) + TINY)
        thickness = torch.maximum(thickness, (away + rounding).max())
        rest = rest + (away + rounding).square().sum()
        least = least + (size - error).clamp_min(0.0).square().sum()
        most = most + (size + error).square().sum()
        off, lost = off + error.square().sum(), lost + size.sum()
        scaled = along / flat.values[:rank]
        gram, sums, total = gram + scaled.T @ scaled, sums + scaled.sum(dim=0), total + x.sum(dim=0)
    gamma, root = dot_error(n + 64), n**0.5
    mean = (lengths(total) + gamma * lost + root * off.sqrt()) * (1 + gamma)
    least = (least * (1 - 2 * gamma) - (mean / root).square() * (1 + gamma)).clamp_min(0.0).sqrt()
    # `most` is 0 where all generators are the same: what rounding there is has no square
    none = rank in (n - 1, points.num_features) or bool(most == 0)
    return Spread(
        thickness=thickness * (1 + 4 * EPS),
        kept=_smallest(flat, gram, sums, off.sqrt(), n),
        rest=zero if none else rest.sqrt() * (1 + gamma),
        least=least * (1 - 4 * EPS),
        most=most.sqrt() * (1 + gamma),
    )


def _smallest(flat: Flat, gram: Tensor, sums: Tensor, error: Tensor, count: int) -> Tensor:
    """Return a lower bound () of σ_r.

    The rows b of A Q / D are off by e, and the squares of the e have a sum of at most that of
    `error`² times Σ 1/D². So their Gram matrix is off by at most 2 |B||e| + |e|² and the rounding
    of its sums, γ_n |B|²; likewise their sum by √n (|e| + γ_n |B|).
    """
    rank = flat.basis.shape[1]
    if rank == 0:
        return torch.full_like(error, torch.inf)
    gamma, root = dot_error(count + 64), count**0.5
    size = (gram.trace() * (1 + 2 * gamma)).sqrt()
    off = error * lengths(1 / flat.values[:rank]) * (1 + gamma) + gamma * size
    shift = lengths(sums) / root
    centred = gram - sums[:, None] * sums / count - torch.eye(rank, dtype=torch.float64)
    doubt = 2 * (size + off) * off + 2 * (shift + off) * off + gamma * size.square()
    apart: Tensor = torch.linalg.vector_norm(centred)
    away = apart * (1 + dot_error(rank**2 + 16)) + doubt
    least: Tensor = (1 - away).clamp_min(0.0).sqrt() * flat.values[rank - 1]
    return least / (1 + flat.skew).sqrt() * (1 - 8 * EPS)
