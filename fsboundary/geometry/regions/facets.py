"""Seed points for the search of facets, and points that prove facets of many class pairs at once.

There is one seed point of the domain per class, where all other logits are low and nearly equal.
Halfway between two of them the two classes tie far above the rest, wherever the weights allow it:
the search for facets starts at such points. They are proposals and prove nothing.

A point on a tie that is strictly above all other logits, strictly inside the domain, is the centre
of a ball of the facet. A lower bound of its radius is computed here, with full norms in place of
those on the tie's plane; the linear program of the pair can only find a larger one.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import UNDERFLOW

_STEPS = 100
"""Number of accelerated (Nesterov) projected gradient steps."""

_RIDGE = 1e-4
"""Fraction of the mean eigenvalue that is added to all, so that weak directions stay short."""

_INNER = 0.02
"""Smallest distance of points from the domain's faces, as a fraction of their mean entry."""


def seed_points(
    weight: Float64[Tensor, "K f"],
    bias: Float64[Tensor, " K"],
    lower: Float64[Tensor, " f"],
    upper: Float64[Tensor, " f"],
    origin: Float64[Tensor, " f"],
    height: float,
) -> Float64[Tensor, "K f"]:
    """Return one point (K,f) per class: least squares for logits `height` above the mean or at it.

    Parameters
    ----------
    weight, bias : Tensor (K, f), (K,)
    lower, upper : Tensor (f,)
        Limits of the domain.
    origin : Tensor (f,)
        Start, a point of the domain among the regions.
    height : float
        Height in logit units.
    """
    centred, offset = _centre(weight, bias, origin)
    gram = centred.T @ centred
    gram = gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    target = height * torch.eye(len(bias), dtype=gram.dtype) - height / len(bias) - offset
    pull = target @ centred
    rate = 1 / torch.linalg.matrix_norm(gram, 2).clamp_min(torch.finfo(gram.dtype).tiny)
    z = ahead = torch.zeros_like(pull)
    low, high = lower - origin, upper - origin
    for step in range(_STEPS):
        after = (ahead - rate * (ahead @ gram - pull)).clamp(low, high)
        ahead, z = after + step / (step + 3) * (after - z), after
    inner = torch.minimum(_INNER * z.abs().mean(), (upper - lower) / 4)
    return (origin + z).clamp(lower + inner, upper - inner)


def seed_heights(
    weight: Float64[Tensor, "K f"],
    bias: Float64[Tensor, " K"],
    lower: Float64[Tensor, " f"],
    upper: Float64[Tensor, " f"],
    origin: Float64[Tensor, " f"],
) -> list[float]:
    """Return heights to try, from many times the logits' spread in the domain to the spread."""
    centred, offset = _centre(weight, bias, origin)
    width = upper - lower
    width = torch.where(torch.isfinite(width), width, 0.0)
    spread = float((centred.square() @ width.square()).mean().sqrt() / 12**0.5)
    base = spread + 3 * float(offset.abs().max())
    if base == 0:
        base = float(centred.square().sum(dim=1).mean().sqrt())
    return [16 * base, base]


def _centre(weight: Tensor, bias: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centred weights, and the centred logits at the origin."""
    centred = weight - weight.mean(dim=0)
    return centred, centred @ origin + bias - bias.mean()


def width_bounds(space: Arrangement) -> Float64[Tensor, "K K"]:
    """Return upper bounds (K,K) of all facet radii from only the width of the box.

    A ball of radius r of a facet with unit normal n spans ``2 r sqrt(1 - n_q²)`` of feature q.
    """
    gamma = dot_error(8 * space.width + 64)
    width = torch.from_numpy(space.upper) - torch.from_numpy(space.lower)
    weight, norms = torch.from_numpy(space.weight), torch.from_numpy(space.norms)
    limited = torch.isfinite(width)
    bound = torch.full_like(norms, torch.inf)
    if not bool(limited.any()):
        return bound
    for i in range(space.num_classes):
        along = (weight[i] - weight)[:, limited] / norms[i][:, None]
        # 1 - n² is off by less than 4 γ
        span = 2 * (1 - along.square() - 4 * gamma).clamp_min(0.0).sqrt()
        bound[i] = (width[limited] / span).amin(dim=1) * (1 + gamma)
    # equal weights have no tie
    return torch.where(norms > 0, bound, torch.inf).nan_to_num(torch.inf, torch.inf)


@final
class FacetTester:
    """Certifies and moves points on the ties of class pairs.

    Rounding model: with γ = dot_error(8 f + 64), a logit is within γ (|w_k| |z| + |b_k|) plus what
    the offsets carry, and a slack within the sum of both logits' bounds.
    """

    def __init__(self, space: Arrangement) -> None:
        self.weight = torch.from_numpy(space.weight)
        self.bias = torch.from_numpy(space.bias)
        self.bias_error = torch.from_numpy(space.bias_error)
        self.full_bias = torch.from_numpy(space.full_bias)
        self.norms = torch.from_numpy(space.norms)
        self.lower, self.upper = torch.from_numpy(space.lower), torch.from_numpy(space.upper)
        self.size = lengths(self.weight)
        self.gamma = dot_error(8 * space.width + 64)

    def logits(self, z: Tensor) -> Tensor:
        """Return scaled logits (P,K) at `z` (P,f)."""
        return torch.addmm(self.bias, z, self.weight.T)

    def clip(self, z: Tensor) -> Tensor:
        """Return the nearest point of the domain."""
        return torch.minimum(torch.maximum(z, self.lower), self.upper)

    def project_on_tie(self, z: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Return `z` (P,f) projected on the ties of `i` and `j` (P,), then on the domain."""
        for _ in range(2):
            normal, value = self._tie(z, i, j)
            step = value / self.norms[i, j].clamp_min(UNDERFLOW).square()
            z = self.clip(z - step[:, None] * normal)
        return z

    def radii(self, z: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Return lower bounds (P,) of facet radii, not above 0 where `z` proves nothing.

        Parameters
        ----------
        z : Tensor (P, f)
            Points near the ties and inside the domain.
        i, j : Tensor (P,)
            Pairs of classes with different weights.
        """
        gamma, length = self.gamma, lengths(z)
        normal, value = self._tie(z, i, j)
        tie = self.norms[i, j]
        error = self.size * length[:, None] + self.bias.abs() + UNDERFLOW * (1 + length[:, None])
        error = gamma * error + self.bias_error * (1 + gamma)
        # the tie's own row is shorter than the logits' rows
        tie_error = gamma * (tie * length + (self.bias[i] - self.bias[j]).abs())
        tie_error = tie_error + gamma * UNDERFLOW * (1 + length)
        tie_error = tie_error + (self.bias_error[i] + self.bias_error[j]) * (1 + gamma)
        off = (value.abs() + tie_error) / (tie * (1 - gamma))
        # the shorter of the two rows that agree on the tie; its projection is no longer than this
        base = torch.where(self.norms[i] <= self.norms[j], i[:, None], j[:, None])
        norm = torch.minimum(self.norms[i], self.norms[j]) * (1 + gamma)
        logits = self.logits(z)
        slack = logits.gather(1, base) - logits
        doubt = error + error.gather(1, base) + norm * off[:, None]
        radius = torch.where(slack > doubt, (slack - doubt) / norm, -1.0)
        radius = torch.where(norm == 0, self._constant(base), radius)
        radius.scatter_(1, i[:, None], torch.inf).scatter_(1, j[:, None], torch.inf)
        drift = normal.abs() / tie[:, None] * (1 + gamma) * off[:, None]
        below, above = (z - self.lower) * (1 - gamma), (self.upper - z) * (1 - gamma)
        room = (torch.minimum(below, above) - drift).amin(dim=1)
        smallest = torch.minimum(radius.amin(dim=1), room) * (1 - gamma)
        # with no row and no face left a ball of any size fits: the program proves that, not a point
        valid = torch.isfinite(smallest) & (tie > 0) & torch.isfinite(z).all(dim=1)
        return torch.where(valid, smallest, -1.0)

    def improve(self, z: Tensor, i: Tensor, j: Tensor, clearance: Tensor) -> tuple[Tensor, Tensor]:
        """Return `z` (P,f) moved along its tie off the highest other class, and which need no move.

        A move ends at the distance `clearance` (P,) from that class and inside the domain, as far
        as the tie and the domain allow both.
        """
        logits = self.logits(z)
        tied = torch.minimum(logits.gather(1, i[:, None]), logits.gather(1, j[:, None]))[:, 0]
        logits.scatter_(1, i[:, None], -torch.inf).scatter_(1, j[:, None], -torch.inf)
        highest, other = logits.max(dim=1)
        inside = ((z > self.lower) & (z < self.upper)).all(dim=1)
        normal = (self.weight[i] - self.weight[j]) / self.norms[i, j][:, None].clamp_min(UNDERFLOW)
        row = self.weight[i] - self.weight[other]
        row = row - torch.linalg.vecdot(row, normal)[:, None] * normal
        length = lengths(row).clamp_min(UNDERFLOW)
        step = (clearance + (highest - tied) / length).clamp_min(0.0) / length
        step = torch.where(torch.isfinite(step), step, 0.0)
        moved = z + step[:, None] * row
        inner = torch.minimum(clearance[:, None], (self.upper - self.lower) / 4)
        moved = torch.minimum(torch.maximum(moved, self.lower + inner), self.upper - inner)
        return self.project_on_tie(moved, i, j), (highest < tied) & inside

    def _tie(self, z: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        normal = self.weight[i] - self.weight[j]
        return normal, torch.linalg.vecdot(normal, z) + self.bias[i] - self.bias[j]

    def _constant(self, base: Tensor) -> Tensor:
        """Return +inf (P,K) where a class with the base's weights is not above it, else -1."""
        doubt = self.bias_error[base] + self.bias_error
        below = (self.bias[base] - self.bias) * (1 - self.gamma) > doubt
        exact = (doubt == 0) & (self.full_bias[base] >= self.full_bias)
        return torch.where(below | exact, torch.inf, -1.0)
