"""Theorems of convex geometry that fix how many hulls contain a point, or meet, exactly."""

from __future__ import annotations

import math

import pytest
import torch

from fsboundary import FeatureBank, hull_vertices
from support.known_counts import (
    cover_count,
    division_intersections,
    expected_vertices,
    origin_memberships,
    wendel_count,
)


@pytest.mark.parametrize(("count", "dimension"), [(6, 2), (8, 3), (9, 5)])
def test_as_many_signs_miss_the_origin_as_wendel_says(count: int, dimension: int) -> None:
    points = torch.randn(count, dimension, generator=torch.Generator().manual_seed(count)).double()
    inside = origin_memberships(points)
    assert int((inside == -1).sum()) == wendel_count(count, dimension)
    assert int((inside == 0).sum()) == 0


@pytest.mark.parametrize(("count", "dimension"), [(6, 2), (8, 3), (8, 5)])
def test_as_many_divisions_are_separable_as_cover_says(count: int, dimension: int) -> None:
    points = torch.randn(count, dimension, generator=torch.Generator().manual_seed(count)).double()
    meet = division_intersections(points)
    assert int((meet == -1).sum()) + 2 == cover_count(count, dimension)
    assert int((meet == 0).sum()) == 0


def test_small_counts_of_both_theorems() -> None:
    """Two points on a line: the hull of both misses the origin if their signs agree."""
    assert (wendel_count(2, 1), cover_count(3, 1), cover_count(4, 2)) == (2, 6, 14)
    assert wendel_count(5, 5) == 2**5


@pytest.mark.parametrize("dimension", [2, 3])
def test_gaussian_polytopes_have_the_expected_number_of_vertices(dimension: int) -> None:
    generator = torch.Generator().manual_seed(dimension)
    counts = [
        len(hull_vertices(FeatureBank(points)).indices)
        for points in torch.randn(50, 30, dimension, generator=generator).double()
    ]
    mean = sum(counts) / len(counts)
    error = (sum((c - mean) ** 2 for c in counts) / len(counts) / len(counts)) ** 0.5
    assert abs(mean - expected_vertices(30, dimension)) < 4 * error  # 1 in 16,000 for fixed seeds
    assert math.isclose(expected_vertices(dimension + 1, dimension), dimension + 1, rel_tol=1e-9)
