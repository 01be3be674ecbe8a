"""Partitions of small examples, checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

import fsboundary as fsb
from fsboundary import Status

INF = math.inf
PLANE = fsb.Domain.unbounded()


def head(
    weight: list[list[float]], bias: list[float], domain: fsb.Domain = PLANE
) -> fsb.LinearHead:
    return fsb.LinearHead(
        torch.tensor(weight).double().reshape(len(bias), -1), torch.tensor(bias).double(), domain
    )


def box(lower: list[float], upper: list[float]) -> fsb.Domain:
    return fsb.Domain.box(torch.tensor(lower), torch.tensor(upper))


def test_two_classes_on_the_plane() -> None:
    found = fsb.partition(head([[1, 0], [-1, 0]], [0, 0]))
    assert found.status.tolist() == [[3, 2], [2, 3]]
    assert found.region_status.tolist() == found.bounded_status.tolist() == [2, 2]
    assert found.chebyshev_radius.tolist() == [INF, INF]
    assert found.facet_radius[0, 1] == INF
    assert found.facet_centre[0, 0] == 0
    assert found.weight_angle[0, 1] == pytest.approx(math.pi)
    assert found.ok.all()


def test_two_classes_in_a_square() -> None:
    found = fsb.partition(head([[1, 0], [-1, 0]], [-1, 0]), box([0, 0], [1, 1]))
    torch.testing.assert_close(found.chebyshev_radius, torch.tensor([0.25, 0.25]).double())
    # the facet is the segment x = 1/2, half as long as the square
    torch.testing.assert_close(found.facet_radius[0, 1], torch.tensor(0.5).double())
    torch.testing.assert_close(found.facet_centre, torch.tensor([[0.5, 0.5]]).double())
    assert found.status[0, 1] == Status.CONVERGED
    assert found.bounded.all()


def test_a_triangle_among_three_unbounded_regions() -> None:
    root = 3**0.5
    found = fsb.partition(head([[0, 0], [0, 2], [root, -1], [-root, -1]], [2, 0, 0, 0]))
    assert found.bounded.tolist() == [True, False, False, False]
    assert found.bounded_status.tolist() == [0, 2, 2, 2]
    torch.testing.assert_close(found.chebyshev_radius[0], torch.tensor(1.0).double())
    torch.testing.assert_close(found.facet_radius[0, 1:], torch.full((3,), root).double())
    assert (found.facet_radius[1:, 1:].fill_diagonal_(INF) == INF).all()
    assert found.adjacency.sum() == 12


def test_an_empty_region() -> None:
    found = fsb.partition(head([[1, 0], [-1, 0], [0, 0]], [0, 0, -1]))
    assert found.nonempty.tolist() == [True, True, False]
    assert found.region_status[2] == Status.INFEASIBLE
    assert found.chebyshev_upper[2] < 0
    assert found.chebyshev_radius[2].isnan()
    assert found.chebyshev_centre[2].isnan().all()
    assert found.status[2, :2].tolist() == [Status.INFEASIBLE] * 2
    assert found.redundant.tolist() == [[False, False, True], [False, False, True], [False] * 3]
    assert found.neighbours(0).tolist() == [1]
    assert found.neighbours(2).tolist() == []


def test_two_pairs_of_regions_that_touch_in_a_point_only() -> None:
    found = fsb.partition(head([[1, 1], [-1, 1], [-1, -1], [1, -1]], [0, 0, 0, 0]))
    assert found.nonempty.all()
    assert found.facet_pairs.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    for i, j in ((0, 2), (1, 3)):
        # the largest ball of the common point has radius 0, which rounding hides
        assert found.status[i, j] in (Status.UNDECIDED, Status.INFEASIBLE)
        assert found.facet_upper[i, j] < 1e-12
        assert found.facet_radius[i, j].isnan()


def test_parallel_planes() -> None:
    found = fsb.partition(head([[1, 0], [0, 0], [-1, 0]], [-1, 0, -1]))
    assert found.facet_pairs.tolist() == [[0, 1], [1, 2]]
    assert found.status[0, 2] == Status.INFEASIBLE
    # a strip contains no large ball and is unbounded anyway
    torch.testing.assert_close(found.chebyshev_radius[1], torch.tensor(1.0).double())
    assert found.region_status[1] == Status.CONVERGED
    assert found.bounded_status[1] == Status.UNBOUNDED
    assert found.narrowest(2).tolist() == [1, 0]


def test_a_strip_among_planes_that_are_not_parallel() -> None:
    found = fsb.partition(
        head([[1, 0], [0, 0], [-1, 0], [0, 1]], [-1, 0, -1, 0]), box([-INF, -INF], [INF, -5])
    )
    assert found.region_status.tolist() == [2, 0, 2, 1]
    assert not found.bounded[1]
    torch.testing.assert_close(found.chebyshev_radius[1], torch.tensor(1.0).double())


def test_equal_rows() -> None:
    found = fsb.partition(head([[1, 0], [1, 0], [1, 0], [-1, 0]], [0, 0, -1, 0]))
    assert found.status[0, 1] == Status.DUPLICATE
    assert found.nonempty.tolist() == [True, True, False, True]
    assert found.region_status[2] == Status.INFEASIBLE
    assert found.status[2, [0, 1, 3]].tolist() == [Status.INFEASIBLE] * 3
    assert found.facet_pairs.tolist() == [[0, 3], [1, 3]]
    # also where both are empty, and without a program
    found = fsb.partition(
        head([[1, 0], [1, 0], [1, 0]], [0, -1, -1]), pairs=torch.zeros(0, 2).long()
    )
    assert found.status.tolist() == [[3, 1, 1], [1, 3, 3], [1, 3, 3]]
    assert found.nonempty.tolist() == [True, False, False]


def test_the_domain_cuts_regions_and_facets() -> None:
    weight, bias = [[1.0, 0.0], [-1.0, 0.0]], [1.0, 0.0]  # they tie at x = -1/2
    found = fsb.partition(head(weight, bias, fsb.Domain.nonnegative()))
    assert found.nonempty.tolist() == [True, False]
    assert found.status[0, 1] == Status.INFEASIBLE
    # a tie on a face of the domain: both closed regions contain it, and one of them is flat
    found = fsb.partition(head(weight, [0, 0], fsb.Domain.nonnegative()))
    assert found.adjacency[0, 1]
    assert found.nonempty.tolist() == [True, False]


def test_a_fixed_feature_moves_into_the_offsets() -> None:
    weight = [[1.0, 0.0, 3.0], [-1.0, 0.0, 0.0]]
    found = fsb.partition(head(weight, [0, 0.5]), box([0, 0, -0.5], [1, 1, -0.5]))
    want = fsb.partition(head([row[:2] for row in weight], [-1.5, 0.5]), box([0, 0], [1, 1]))
    torch.testing.assert_close(found.chebyshev_radius, want.chebyshev_radius, equal_nan=True)
    assert torch.equal(found.status, want.status)
    assert (found.chebyshev_centre[found.nonempty][:, 2] == -0.5).all()


def test_one_feature() -> None:
    found = fsb.partition(head([[-1], [0], [1]], [-1, 0, -1]), box([-3], [3]))
    torch.testing.assert_close(found.chebyshev_radius, torch.ones(3).double())
    # a facet is a point, in which a ball of dimension 0 fits at any radius
    assert found.facet_pairs.tolist() == [[0, 1], [1, 2]]
    assert found.status[0, 2] == Status.INFEASIBLE


@pytest.mark.parametrize("d", [3, 40])
def test_with_more_features_than_differences_of_rows_nothing_is_bounded(d: int) -> None:
    g = torch.Generator().manual_seed(d)
    weight = torch.randn(3, d, generator=g, dtype=torch.float64)
    found = fsb.partition(fsb.LinearHead(weight, None))
    assert found.nonempty.all()
    assert (found.bounded_status == Status.UNBOUNDED).all()
    assert (found.status.fill_diagonal_(2) == Status.UNBOUNDED).all()
