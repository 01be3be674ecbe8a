from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Domain

INF = float("inf")


def test_contains_and_clip() -> None:
    z = torch.tensor([[0.5, -0.1], [0.5, 0.1], [torch.nan, 0.0], [2.0, 0.0]])
    box = Domain.box(torch.tensor([0.0, -1.0]), torch.tensor([1.0, INF]))
    assert Domain.unbounded().contains(z).tolist() == [True, True, False, True]
    assert Domain.nonnegative().contains(z).tolist() == [False, True, False, True]
    assert Domain.nonnegative().contains(z, atol=0.2).tolist() == [True, True, False, True]
    assert box.contains(z).tolist() == [True, True, False, False]
    assert Domain.nonnegative().clip(z[0]).tolist() == [0.5, 0.0]
    assert box.clip(z[3]).tolist() == [1.0, 0.0]
    assert box.violation(z[3:]).tolist() == [1.0]


def test_limits_of_each_kind() -> None:
    like = torch.zeros(1, 2)
    assert [t.tolist() for t in Domain.unbounded().limits(like)] == [[-INF] * 2, [INF] * 2]
    assert [t.tolist() for t in Domain.nonnegative().limits(like)] == [[0.0] * 2, [INF] * 2]
    box = Domain.box(torch.zeros(2), torch.ones(2))
    assert [t.tolist() for t in box.limits(like)] == [[0.0] * 2, [1.0] * 2]


def test_a_box_keeps_its_own_copy() -> None:
    lower = torch.zeros(2, dtype=torch.float64)
    box = Domain.box(lower, torch.ones(2))
    lower += 5
    assert box.contains(torch.full((1, 2), 0.5)).all()


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0, 2.0], [1.0, 1.0], r"lower\[1\]=2.0, upper\[1\]=1.0"),
        ([0.0, float("nan")], [1.0, 1.0], r"lower\[1\]=nan"),
        ([0.0], [1.0, 1.0], r"shapes \(1,\) and \(2,\)"),
        ([INF], [INF], "lower below"),
        ([[0.0]], [[1.0]], r"one shape \(d,\)"),
    ],
)
def test_malformed_boxes(lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Domain.box(torch.tensor(lower), torch.tensor(upper))


def test_width_is_checked() -> None:
    box = Domain.box(torch.zeros(3), torch.ones(3))
    with pytest.raises(ArgumentError, match="a box of width 3 for features of width 2"):
        fsb.LinearHead(torch.eye(2), None, box)
    with pytest.raises(ArgumentError, match="width 3"):
        box.contains(torch.zeros(1, 2))


def test_equality() -> None:
    box = Domain.box(torch.zeros(2), torch.ones(2))
    assert box == Domain.box(torch.zeros(2), torch.ones(2))
    assert hash(box) == hash(Domain.box(torch.zeros(2), torch.ones(2)))
    assert box != Domain.box(torch.zeros(2), 2 * torch.ones(2))
    assert Domain.nonnegative() == Domain.nonnegative() != Domain.unbounded()
