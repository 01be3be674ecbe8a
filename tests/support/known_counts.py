"""Counts that are the same for every set of points in general position, and expected values."""

from __future__ import annotations

import itertools
import math

import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from fsboundary import FeatureBank, hull_projection, hull_separation


def all_signs(count: int) -> Tensor:
    """Return every choice of `count` signs, (2^count, count)."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=count)), dtype=torch.float64)


def wendel_count(points: int, dimension: int) -> int:
    """Return for how many choices of signs the hull of the signed points misses the origin.

    Wendel (1962): 2 sum_{k < d} C(n - 1, k), for any n points in general position.
    """
    return 2 * sum(math.comb(points - 1, k) for k in range(dimension))


def cover_count(points: int, dimension: int) -> int:
    """Return how many of the 2^n divisions into two sets a hyperplane separates.

    Cover (1965): 2 sum_{k <= d} C(n - 1, k), for any n points in general position.
    """
    return wendel_count(points, dimension + 1)


def origin_memberships(points: Tensor) -> Tensor:
    """Return whether the origin is in the hull of `points` (N,d), for each choice of signs."""
    count, dimension = points.shape
    signs = all_signs(count)
    choices = torch.arange(len(signs))
    bank = FeatureBank(
        (signs[:, :, None] * points).reshape(-1, dimension), choices.repeat_interleave(count)
    )
    origins = torch.zeros(len(signs), dimension, dtype=torch.float64)
    return hull_projection(bank, origins, labels=choices).membership


def division_intersections(points: Tensor) -> Tensor:
    """Return whether the hulls of both parts of `points` (N,d) meet, for each division.

    The two divisions with an empty part are left out.
    """
    signs = all_signs(len(points))[1:-1]
    choices = torch.arange(len(signs))
    labels = 2 * choices[:, None] + (signs > 0)
    bank = FeatureBank(points.repeat(len(signs), 1), labels.reshape(-1))
    return hull_separation(bank, 2 * choices, 2 * choices + 1).intersect


def expected_vertices(points: int, dimension: int) -> float:
    """Return the expected number of vertices of the hull of n Gaussian points, d = 2 or 3.

    A facet is d points with all others on one side. The distance of the plane through d Gaussian
    points from the origin is normal with variance 1 / d, so the expected number of facets is
    2 C(n, d) E[Phi(P)^(n - d)] (Efron 1965). A polygon has as many vertices as edges; of a
    polytope with triangular faces, Euler's formula gives them as facets / 2 + 2.
    """
    density = norm(scale=dimension**-0.5)
    value, _ = quad(
        lambda p: norm.cdf(p) ** (points - dimension) * density.pdf(p), -9, 9, limit=200
    )
    facets = 2 * math.comb(points, dimension) * value
    return facets if dimension == 2 else facets / 2 + 2
