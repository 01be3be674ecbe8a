from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem


def test_one_bad_row_fails_alone() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=6, seed=0)
    want = fsb.flip_points(head, z, "all")
    z[1, 2], z[3, 0], z[4, 4] = torch.nan, -0.25, torch.inf
    got = fsb.flip_points(head, z, "all")
    assert (got.status[1] == Status.NOT_FINITE).all()
    assert (got.status[3] == Status.OUTSIDE_DOMAIN).all()
    assert (got.status[4] == Status.NOT_FINITE).all()
    for row in (1, 3, 4):
        assert torch.isnan(got.points[row]).all()
        assert torch.isnan(got.distance[row]).all()
        assert (got.lower_bound[row] == 0).all()
    for row in (0, 2, 5):
        assert torch.equal(got.distance[row], want.distance[row])
    with pytest.raises(fsb.StatusError, match=r"NOT_FINITE x 8 .*NaN or infinite"):
        got.raise_for_status()


def test_target_equal_to_the_source() -> None:
    head, z = make_problem(4, 3, "unbounded", rows=5, seed=1)
    source = head.predict(z)
    targets = torch.stack([source, (source + 1) % 4], dim=1)
    flips = fsb.flip_points(head, z, targets)
    assert (flips.status[:, 0] == Status.TARGET_IS_SOURCE).all()
    assert torch.isnan(flips.distance[:, 0]).all()
    assert flips.ok[:, 1].all()


def test_an_empty_region_is_infeasible_and_says_so() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    # class 2 is the mean of the others less 1: never the largest
    head = fsb.LinearHead(weight, torch.tensor([0.0, 0.0, -1.0]))
    z = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    flips = fsb.flip_points(head, z, torch.tensor([2, 2]))
    assert (flips.status == Status.INFEASIBLE).all()
    assert torch.isinf(flips.distance).all()
    assert torch.isnan(flips.points).all()
    assert flips.ok.all()


def test_unreachable_in_the_domain_only() -> None:
    # class 1 needs a negative second feature
    head_free = fsb.LinearHead(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
    z = torch.tensor([[0.5, 0.5]])
    assert float(fsb.flip_points(head_free, z).distance) == pytest.approx(1.5)
    head = fsb.LinearHead(head_free.weight, head_free.bias, fsb.Domain.nonnegative())
    flips = fsb.flip_points(head, z)
    assert flips.status.item() == Status.INFEASIBLE
    assert torch.isinf(flips.lower_bound).all()
    assert flips.gap.item() == 0
    box = fsb.Domain.box(torch.zeros(2), torch.tensor([torch.inf, 1.0]))
    head = fsb.LinearHead(-head_free.weight, torch.tensor([2.0, 0.0]), box)
    assert torch.isinf(fsb.flip_points(head, z).distance).all()


def test_equal_rows() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    z = torch.tensor([[2.0, 1.0]])
    tied = fsb.LinearHead(weight, torch.zeros(3))
    flips = fsb.flip_points(tied, z, "all")
    assert flips.source.item() == 0
    assert flips.distance[0].tolist() == [0.0, pytest.approx(0.5**0.5)]
    apart = fsb.LinearHead(weight, torch.tensor([0.5, 0.0, 0.0]))
    flips = fsb.flip_points(apart, z, "all")
    assert flips.status[0].tolist() == [Status.INFEASIBLE, Status.CONVERGED]
    # class 1 can never beat class 0, so its own boundary with class 2 does not exist
    flips = fsb.flip_points(apart, torch.tensor([[0.0, 5.0]]), torch.tensor([1]))
    assert flips.status.item() == Status.INFEASIBLE


def test_nearly_equal_rows_are_certified() -> None:
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 8, generator=g, dtype=torch.float64)
    weight[1] = weight[0] + 1e-9 * torch.randn(8, generator=g, dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.zeros(5))
    z = torch.randn(20, 8, generator=g, dtype=torch.float64)
    assert fsb.flip_points(head, z, "all").ok.all()


def test_a_row_on_the_tie_is_at_distance_zero() -> None:
    head = fsb.LinearHead(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    flips = fsb.flip_points(head, torch.tensor([[1.0, 1.0]]))
    assert flips.source.item() == 0
    assert flips.distance.item() == 0
    assert flips.ok.all()


def test_empty_batch_and_no_targets() -> None:
    head, z = make_problem(4, 3, "box", rows=3, seed=2)
    none = fsb.flip_points(head, z[:0], "all")
    assert none.points.shape == (0, 3, 3)
    empty = fsb.flip_points(head, z, torch.zeros((3, 0), dtype=torch.int64))
    assert empty.distance.shape == (3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(2, 4)}, r"shape \(2, 4\); wanted a float tensor \(B, 3\)"),
        ({"features": torch.zeros(3)}, "single row"),
        ({"features": torch.zeros(2, 3, dtype=torch.int64)}, "dtype"),
        ({"features": [[0.0] * 3]}, "features: got a list"),
        ({"head": torch.nn.Linear(3, 4)}, "got 'dual_newton', which lacks it"),
        ({"targets": "closest"}, '"nearest", "all"'),
        ({"targets": torch.zeros(2)}, "dtype torch.float32; wanted.*integer tensor"),
        ({"targets": torch.tensor([0, 4])}, "wanted.* of classes 0 to 3"),
        ({"targets": torch.tensor([0, -2])}, "wanted.* of classes 0 to 3"),
        ({"targets": torch.tensor([0, 1, 2])}, r"\(2,\) or \(2, T\)"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"finder": "dual_newtn"}, "dual_newton"),
    ],
)
def test_malformed_arguments(change: dict[str, object], message: str) -> None:
    head, _ = make_problem(4, 3, "unbounded", rows=1, seed=2)
    arguments = {"head": head, "features": torch.zeros(2, 3), "targets": "all", **change}
    with pytest.raises(ArgumentError, match=message):
        fsb.flip_points(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_no_class_can_be_reached() -> None:
    head = fsb.LinearHead(torch.ones(3, 2), torch.tensor([2.0, 1.0, 0.0]))
    flips = fsb.flip_points(head, torch.ones(2, 2))
    assert (flips.status == Status.INFEASIBLE).all()
    assert (flips.target != flips.source[:, None]).all()
    assert torch.isinf(flips.lower_bound).all()
    assert (flips.gap == 0).all()
