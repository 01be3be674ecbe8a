"""Sizes of regions by sampling, and angles between normals."""

from __future__ import annotations

import math

import pytest
import torch

import fsboundary as fsb
from fsboundary.errors import ArgumentError


def halves() -> fsb.LinearHead:
    """Return a head whose classes divide the unit square at x = 1/4."""
    return fsb.LinearHead(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([-0.5, 0.0]))


def square(high: float = 1.0) -> fsb.Domain:
    return fsb.Domain.box(torch.zeros(2), torch.tensor([1.0, high]))


def test_shares_of_a_square() -> None:
    found = fsb.region_shares(halves(), square(), samples=20_000)
    assert found.shares.sum() == 1
    assert found.standard_error[0] == pytest.approx(math.sqrt(3 / 16 / 20_000), rel=0.05)
    assert abs(found.shares[0] - 0.75) < 5 * found.standard_error[0]
    again = fsb.region_shares(halves(), square(), samples=20_000)
    assert torch.equal(again.shares, found.shares)


def test_shares_of_features() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [3.0, 9.0]])
    assert fsb.feature_shares(halves(), rows).shares.tolist() == [0.75, 0.25]
    assert fsb.feature_shares(halves(), rows).samples == 4


def test_shares_need_bounds_and_rows() -> None:
    with pytest.raises(ArgumentError, match="within: got feature 0 from -inf to inf"):
        fsb.region_shares(halves())
    with pytest.raises(ArgumentError, match="samples: got 0"):
        fsb.region_shares(halves(), square(), samples=0)
    with pytest.raises(ArgumentError, match="features: got no row"):
        fsb.feature_shares(halves(), torch.zeros(0, 2))
    with pytest.raises(ArgumentError, match=r"in rows \[1\]"):
        fsb.feature_shares(halves(), torch.tensor([[0.0, 0.0], [math.nan, 0.0]]))


def test_angles_of_a_regular_simplex() -> None:
    head = fsb.LinearHead(torch.eye(4), None)
    angles = fsb.normal_angles(head, 1)
    assert angles[1].isnan().all()
    assert angles[0, 0] == 0
    torch.testing.assert_close(angles[0, 2], torch.tensor(math.pi / 3).double())
    # rows less their mean look at the corners of the simplex
    between = fsb.partition(head, pairs=torch.tensor([[0, 1]])).weight_angle
    torch.testing.assert_close(between[0, 1], torch.tensor(math.acos(-1 / 3)).double())


def test_angles_keep_their_digits_where_rows_are_nearly_parallel() -> None:
    head = fsb.LinearHead(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-9]]).double(), None)
    assert fsb.normal_angles(head, 0)[1, 2] == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("i", [-1, 2, True, 0.0])
def test_angles_need_a_class(i: object) -> None:
    with pytest.raises(ArgumentError, match="i: got"):
        fsb.normal_angles(halves(), i)  # type: ignore[arg-type]  # wrong on purpose
