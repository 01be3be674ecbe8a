"""Extreme points of banks, against Qhull, closed forms and linear programs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from torch import Tensor

from fsboundary import (
    ArgumentError,
    FeatureBank,
    HullVertices,
    Status,
    hull_vertices,
    leave_one_out_distances,
)
from fsboundary.hulls import leave_one_out
from fsboundary.hulls import vertices as module
from support.hulls.oracles import cloud, rotation, squared_distance


def vertices(points: Tensor, **options: object) -> HullVertices:
    return hull_vertices(FeatureBank(points), **options)  # type: ignore[arg-type]  # options of one call


def by_linear_program(points: Tensor) -> list[int]:
    """Return the rows that are not a convex combination of the other distinct points."""
    found = []
    for row, point in enumerate(points):
        others = points[(points != point).any(dim=1)].numpy()
        a = np.concatenate([others.T, np.ones((1, len(others)))])
        right = np.append(point.numpy(), 1.0)
        if not linprog(np.zeros(len(others)), A_eq=a, b_eq=right).success:
            found.append(row)
    return found


@pytest.mark.parametrize(("n", "d"), [(3, 2), (60, 2), (300, 2), (5, 3), (200, 3), (120, 4)])
def test_agrees_with_qhull(n: int, d: int) -> None:
    points = cloud(n, d, n)
    found = vertices(points)
    assert found.ok.all()
    assert found.indices.tolist() == sorted(ConvexHull(points.numpy()).vertices.tolist())
    assert found.count == len(found.indices)
    assert (found.extreme != 0).all()
    assert (found.lower_bound[found.extreme == -1] <= 1e-8).all()


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 10**6), st.integers(2, 4))
def test_agrees_with_linear_programs_on_a_grid_full_of_ties(
    n: int, d: int, seed: int, m: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.randint(0, m, (n, d), generator=g).double()
    if len(points.unique(dim=0)) == 1:
        points[0] += 1
    found = vertices(points)
    assert found.ok.all()
    assert found.indices.tolist() == by_linear_program(points)
    assert found.count == len(points[found.indices].unique(dim=0))


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 10**6), st.sampled_from([0.0, 1e6]))
def test_no_bound_is_false_without_any_rounding(n: int, d: int, seed: int, shift: float) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, generator=g).double() + shift
    points = points[torch.randint(0, n, (n,), generator=g)]
    found = vertices(points)
    for row, point in enumerate(points):
        others = points[(points != point).any(dim=1)]
        if len(others):
            exact = squared_distance(others, point)
            assert Fraction(float(found.lower_bound[row])) ** 2 <= exact
            assert found.extreme[row] != 1 or exact > 0


def test_a_bank_on_disk_answers_as_one_in_memory(tmp_path: Path) -> None:
    bank = FeatureBank(cloud(60, 3, 11))
    bank.save(tmp_path / "bank")
    found = hull_vertices(FeatureBank.open(tmp_path / "bank"))
    assert torch.equal(found.extreme, hull_vertices(bank).extreme)


def test_copies_are_one_point() -> None:
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    found = vertices(square.repeat(3, 1))
    assert found.copy_of.tolist() == [0, 1, 2, 3, 4] * 3
    assert found.extreme.tolist() == [1, 1, 1, 1, -1] * 3
    assert found.count == 4
    assert len(found.indices) == 12
    assert (found.lower_bound[[0, 1, 2, 3]] <= 0.5**0.5).all()
    assert (found.distance[[0, 1, 2, 3]] >= 0.5**0.5).all()


@pytest.mark.parametrize("copies", [1, 4])
def test_a_sole_point_is_the_vertex_of_its_hull(copies: int) -> None:
    found = vertices(torch.ones(copies, 3))
    assert found.extreme.tolist() == [1] * copies
    assert found.count == 1
    assert found.ok.all()
    assert torch.isinf(found.distance).all()
    assert torch.isinf(found.lower_bound).all()


@pytest.mark.parametrize("kind", ["collinear", "flat", "two points"])
def test_flat_hulls(kind: str) -> None:
    if kind == "collinear":
        points = torch.linspace(-1, 2, 25).double()[:, None] * cloud(1, 6, 0)
        want = [0, 24]
    elif kind == "flat":
        plane = cloud(80, 2, 1)
        points, want = plane @ cloud(2, 7, 2), sorted(ConvexHull(plane.numpy()).vertices.tolist())
    else:
        points, want = cloud(2, 5, 3), [0, 1]
    found = vertices(points)
    assert found.ok.all()
    assert found.indices.tolist() == want


@pytest.mark.parametrize(
    ("scale", "shift"), [(1e-150, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e150, 0.0), (1.0, 1e6)]
)
def test_invariance(scale: float, shift: float) -> None:
    points = cloud(150, 3, 5)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    want, found = vertices(points), vertices((points[order] @ rotation(3, 6)) * scale + shift)
    assert found.ok.all()
    assert torch.equal(found.extreme, want.extreme[order])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.cat([cloud(90, 3, 7), cloud(90, 3, 7)[:20].repeat_interleave(4, dim=0)])
    want = vertices(points)
    monkeypatch.setattr(leave_one_out, "_ROWS", 7)
    monkeypatch.setattr(leave_one_out, "_COPIES", 8)
    found = vertices(points)
    assert torch.equal(found.extreme, want.extreme)
    assert torch.equal(found.copy_of, want.copy_of)
    # each is within the tolerance, a tenth, of the same distance
    assert (found.lower_bound <= want.distance).all()
    assert (want.lower_bound <= found.distance).all()


def test_bounds_contain_the_true_distance() -> None:
    points = cloud(100, 4, 8)
    found, true = vertices(points), leave_one_out_distances(FeatureBank(points))
    assert (found.lower_bound <= true.distance).all()
    assert (true.lower_bound <= found.distance).all()
    assert torch.equal(found.extreme, -true.membership)
    assert (found.steps == 0).any()
    assert (found.steps > 0).any()


def test_few_steps_leave_points_open() -> None:
    points = cloud(400, 3, 9)
    want, few = vertices(points), vertices(points, max_steps=1)
    assert (few.extreme[~few.ok] == 0).all()
    assert (few.status[~few.ok] == Status.MAX_STEPS).all()
    assert torch.equal(few.extreme[few.ok], want.extreme[few.ok])


def test_undecided_memberships_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_bracket(bank: FeatureBank, rows: Tensor, **_: object) -> dict[str, Tensor]:
        number = torch.ones(len(rows), dtype=torch.float64)
        whole = torch.zeros(len(rows), dtype=torch.int64)
        bounds = {"distance": 2e-9 * number, "lower_bound": 1e-9 * number}
        return bounds | {"membership": whole, "status": whole, "steps": whole}

    monkeypatch.setattr(module, "project_left_out", open_bracket)
    # one direction proves three corners vertices, but not the point between them
    found = vertices(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [1.0, 1.0]]))
    assert found.status.tolist() == [0, 0, 0, Status.UNDECIDED]
    assert found.extreme.tolist() == [1, 1, 1, 0]


def test_rejected() -> None:
    with pytest.raises(ArgumentError, match="bank: got a Tensor; wanted a FeatureBank"):
        hull_vertices(cloud(3, 2, 0))  # type: ignore[arg-type]  # the wrong type is what is tested
    with pytest.raises(ArgumentError, match=r"tolerance: got 2\.0"):
        vertices(cloud(3, 2, 0), tolerance=2.0)
    with pytest.raises(ArgumentError, match=r"hull_solver: got.*activ"):
        vertices(cloud(3, 2, 0), solver="activ")
