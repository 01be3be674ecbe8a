from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem


def test_one_bad_row_fails_alone() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=6, seed=0)
    want = fsb.tie_points(head, z, torch.tensor([0, 3, 4]))
    z[1, 2], z[3, 0], z[4, 4] = torch.nan, -0.25, torch.inf
    got = fsb.tie_points(head, z, torch.tensor([0, 3, 4]))
    assert got.status[[1, 3, 4]].tolist() == [
        Status.NOT_FINITE,
        Status.OUTSIDE_DOMAIN,
        Status.NOT_FINITE,
    ]
    for row in (1, 3, 4):
        assert torch.isnan(got.points[row]).all()
        assert torch.isnan(got.distance[row])
        assert got.lower_bound[row] == 0
        assert got.anchor[row] == -1
    for row in (0, 2, 5):
        torch.testing.assert_close(got.distance[row], want.distance[row], rtol=1e-12, atol=0.0)
    with pytest.raises(fsb.StatusError, match=r"NOT_FINITE x 2 .*NaN or infinite"):
        got.raise_for_status()


def test_duplicates_tie_for_nothing() -> None:
    head, z = make_problem(4, 6, "nonnegative", rows=10, seed=1)
    weight = torch.cat([head.weight, head.weight[1:2]])
    bias = torch.cat([head.bias, head.bias[1:2]])
    twin = fsb.LinearHead(weight, bias, head.domain)
    want = fsb.tie_points(head, z, torch.tensor([1, 2]))
    for classes in ([1, 2, 4], [4, 2, 1], [4, 2]):
        got = fsb.tie_points(twin, z, torch.tensor(classes))
        assert torch.equal(got.status, want.status)
        torch.testing.assert_close(got.distance, want.distance, rtol=1e-9, atol=1e-12)
    assert torch.equal(
        fsb.tie_points(twin, z, torch.tensor([1, 4])).status,
        fsb.tie_points(head, z, torch.tensor([1])).status,
    )


def test_equal_weights_and_other_biases_never_tie() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    head = fsb.LinearHead(weight, torch.tensor([0.0, 0.5, 0.0, -9.0]))
    z = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    for classes in ([0, 1], [2, 1, 0], [0], [0, 3]):
        ties = fsb.tie_points(head, z, torch.tensor(classes))
        assert (ties.status == Status.INFEASIBLE).all()
        # proved, not only far
        assert torch.isinf(ties.lower_bound).all()
        assert (ties.gap == 0).all()


def test_parallel_planes_and_an_empty_region() -> None:
    # logits 0, x, 2x - 1 in one feature: all tie nowhere, class 1 is largest in [0, 1]
    head = fsb.LinearHead(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0.0, 0.0, -1.0]))
    z = torch.tensor([[3.0], [0.5], [-2.0]])
    middle = fsb.tie_points(head, z, torch.tensor([1]))
    assert middle.distance.tolist() == [2.0, 0.0, 2.0]
    assert (fsb.tie_points(head, z, torch.arange(3)).status == Status.INFEASIBLE).all()
    assert (fsb.tie_points(head, z, torch.tensor([0, 2])).status == Status.INFEASIBLE).all()
    empty = fsb.LinearHead(head.weight, torch.tensor([0.0, -1.0, 0.0]))
    assert (fsb.tie_points(empty, z, torch.tensor([1])).status == Status.INFEASIBLE).all()
    # three lines through one point: class 1 is largest there and nowhere else
    touching = fsb.LinearHead(head.weight, torch.zeros(3))
    point = fsb.tie_points(touching, z, torch.tensor([1]))
    torch.testing.assert_close(point.distance, z.double()[:, 0].abs(), rtol=1e-9, atol=1e-12)


def test_unreachable_in_the_domain_only() -> None:
    head = fsb.LinearHead(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
    z = torch.tensor([[0.5, 0.5]])
    assert float(fsb.tie_points(head, z, torch.tensor([1])).distance) == pytest.approx(1.5)
    shut = fsb.LinearHead(head.weight, head.bias, fsb.Domain.nonnegative())
    for classes in ([1], [0, 1]):
        ties = fsb.tie_points(shut, z, torch.tensor(classes))
        assert ties.status.item() == Status.INFEASIBLE
        assert torch.isinf(ties.lower_bound).all()


def test_nearly_equal_rows_are_certified() -> None:
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 8, generator=g, dtype=torch.float64)
    weight[1] = weight[0] + 1e-9 * torch.randn(8, generator=g, dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.zeros(5))
    z = torch.randn(20, 8, generator=g, dtype=torch.float64)
    for classes in ([0, 1, 2], [2, 1, 0, 4], [1], [0, 3]):
        assert fsb.tie_points(head, z, torch.tensor(classes)).ok.all()


def test_empty_batch() -> None:
    head, z = make_problem(4, 3, "box", rows=3, seed=2)
    none = fsb.tie_points(head, z[:0], torch.tensor([0, 1]))
    assert none.points.shape == (0, 3)
    assert none.classes.shape == (0, 2)
    assert fsb.largest_ties(head, z[:0]).count.shape == (0,)
    assert fsb.region_distances(head, z[:0]).gradient.shape == (0, 4, 3)
    assert fsb.ambiguity(head, z[:0]).shape == (0,)
    assert fsb.class_path(head, z[:0], z[:0]).classes.shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3)}, "single row"),
        ({"head": torch.nn.Linear(3, 4)}, "head: got a Linear"),
        ({"classes": [0, 1]}, r"torch.tensor\(\[0, 1\]\)"),
        ({"classes": torch.zeros(2)}, "dtype torch.float32; wanted an integer tensor"),
        ({"classes": torch.tensor([0, 4])}, "wanted an integer tensor.* of classes -1 to 3"),
        ({"classes": torch.tensor([0, -2])}, "wanted an integer tensor.* of classes -1 to 3"),
        ({"classes": torch.tensor([[0, 1]])}, r"\(M,\) or \(2, M\)"),
        ({"classes": torch.zeros(0, dtype=torch.int64)}, "at least one class"),
        ({"classes": torch.tensor([[0, 1], [-1, -1]])}, "no class in row 1"),
        ({"classes": torch.tensor([[0, 1], [2, 2]])}, r"\[2, 2\] in row 1; wanted no repeats"),
        ({"tolerance": 2.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_malformed_arguments(change: dict[str, object], message: str) -> None:
    head, _ = make_problem(4, 3, "unbounded", rows=1, seed=2)
    given = {"head": head, "features": torch.zeros(2, 3), "classes": torch.arange(2), **change}
    with pytest.raises(ArgumentError, match=message):
        fsb.tie_points(**given)  # type: ignore[arg-type]  # wrong on purpose
