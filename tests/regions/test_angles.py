from __future__ import annotations

import math

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError
from fsboundary.regions.angles import pairwise_angles
from support.flips.oracles import make_problem


def test_angles_by_hand() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    angles = fsb.normal_angles(fsb.LinearHead(weight, None), 0)
    assert torch.isnan(angles[[0, 5]]).all()
    assert torch.isnan(angles[:, [0, 5]]).all()
    quarter = math.pi / 2
    want = [0, quarter, 2 * quarter, quarter / 2]
    assert angles[1, 1:5].tolist() == pytest.approx(want, abs=1e-15)
    assert torch.equal(angles[1:5, 1:5], angles[1:5, 1:5].T)


@pytest.mark.parametrize("scale", [1e-160, 1.0, 1e140])
def test_agrees_with_the_arc_cosine_at_any_scale(scale: float) -> None:
    head, _ = make_problem(6, 5, "unbounded", rows=1, seed=0)
    scaled = fsb.LinearHead(head.weight * scale, None)
    for i in range(6):
        normal = head.weight[i] - head.weight
        unit = normal / normal.norm(dim=1, keepdim=True)
        want = (unit @ unit.T).clamp(-1, 1).acos()
        # the arc cosine is good for half of the digits near 0
        torch.testing.assert_close(
            fsb.normal_angles(scaled, i), want, equal_nan=True, rtol=0, atol=1e-7
        )


def test_small_angles_keep_their_digits() -> None:
    for angle in (1e-12, 1e-5, math.pi - 1e-5):
        rows = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]]).double()
        rows[1] = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        found = float(pairwise_angles(rows)[0, 1])
        assert found == pytest.approx(angle, rel=1e-12, abs=1e-15)


def test_turning_and_moving_the_weights_changes_nothing() -> None:
    head, _ = make_problem(5, 4, "unbounded", rows=1, seed=1)
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=torch.float64))[0]
    moved = fsb.LinearHead(head.weight @ turn + 3.0, None)
    torch.testing.assert_close(
        fsb.normal_angles(moved, 2), fsb.normal_angles(head, 2), equal_nan=True
    )


def test_bad_arguments() -> None:
    head, z = make_problem(3, 2, "unbounded", rows=1, seed=0)
    for i in (3, -1, 1.0, True):
        with pytest.raises(ArgumentError, match="0 to 2"):
            fsb.normal_angles(head, i)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match="a LinearHead"):
        fsb.normal_angles(z, 0)  # type: ignore[arg-type]  # wrong on purpose
