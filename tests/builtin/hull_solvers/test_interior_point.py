"""The interior-point solver on pairs of hulls, against the default solver and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import ArgumentError, FeatureBank, HullSeparation, Status
from fsboundary.builtin.hull_solvers.interior_point import InteriorPoint, shortest_weights
from fsboundary.geometry.hulls.separation import Differences
from support.hulls.oracles import cloud, rotation
from support.hulls.pairs import separation as by_default


def separation(one: Tensor, other: Tensor, **options: object) -> HullSeparation:
    return by_default(one, other, **({"solver": "interior_point"} | options))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    d=st.integers(1, 12),
    shift=st.floats(0, 4),
)
def test_distances_are_those_of_the_default(
    seed: int, n: int, m: int, d: int, shift: float
) -> None:
    one, other = cloud(n, d, seed), cloud(m, d, seed + 1) + shift
    want, found = by_default(one, other), separation(one, other)
    assert found.ok.all()
    assert float(found.lower_bound) <= float(want.distance) * (1 + 1e-9) + 1e-9
    assert float(found.distance) == pytest.approx(float(want.distance), rel=2e-6, abs=1e-7)
    assert not (want.intersect * found.intersect == -1).any()


@pytest.mark.parametrize("gap", [0.0, 1e-3, 1.0])
def test_parallel_squares(gap: float) -> None:
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]).double()
    found = separation(square, square + torch.tensor([0.25, 0.25, gap]).double())
    assert found.ok.all()
    assert float(found.distance) == pytest.approx(gap, rel=1e-6, abs=1e-9)
    assert found.intersect.tolist() == [1 if gap == 0 else -1]


def test_hulls_that_meet_only_without_some_of_their_points() -> None:
    # each of the first points has a coordinate that no other point has, so its weight must be 0
    d, alone = 12, 8
    one, other = cloud(60, d, 1), cloud(60, d, 2)
    wide = torch.zeros(120, d + alone).double()
    wide[:, :d] = torch.cat([one, other])
    wide[range(alone), range(d, d + alone)] = 1.0
    found = separation(wide[:60], wide[60:])
    assert found.ok.all()
    assert found.intersect.tolist() == [1]
    named = found.support[0, 0][found.weights[0, 0] > 1e-9]
    assert not torch.isin(torch.arange(alone), named).any()


def test_the_result_rotates_with_the_points() -> None:
    one, other, turn = cloud(25, 6, 3), cloud(20, 6, 4) + 1.5, rotation(6, 5)
    want, found = separation(one, other), separation(7 * one @ turn + 3, 7 * other @ turn + 3)
    assert float(found.distance) == pytest.approx(7 * float(want.distance), rel=2e-6)


@pytest.mark.parametrize("gap", [1e-6, 1e-7, 1e-8])
def test_hulls_a_hair_apart_are_not_reported_to_meet(gap: float) -> None:
    # two flat hulls, one above the other, so that the gap is exact
    one, other = cloud(30, 4, 12), cloud(30, 4, 13)
    one[:, 3], other[:, 3] = 0, gap
    found = separation(one, other)
    # nearer than 1e-7 of the points' size it may stay undecided
    assert found.intersect.tolist() in ([[-1], [0]] if gap < 1e-7 else [[-1]])
    assert float(found.lower_bound) <= gap


def test_steps_do_not_cycle() -> None:
    # as Mehrotra's do here with the full second-order correction
    one, other = cloud(23, 5, 23), cloud(23, 5, 24) + 2.5
    found = separation(one, other)
    assert found.ok.all()
    assert int(found.steps) < 15


def test_rows_whose_points_are_all_left_out_have_no_solution() -> None:
    solver, points = InteriorPoint(), FeatureBank(cloud(4, 3, 16))
    exclude = torch.tensor([[0, 1, 2, 3], [0, 1, 2, -1]])
    queries = cloud(2, 3, 17)
    found = solver.project(
        solver.prepare(points), queries, exclude=exclude, tolerance=1e-6, max_steps=50
    )
    assert (found.support[0] == -1).all()
    assert found.support[1].tolist() == [3]
    assert found.weights[1].tolist() == [1.0]


def test_weights_of_pairs_add_up_to_those_of_both_sides() -> None:
    one, other = FeatureBank(cloud(40, 5, 6)), FeatureBank(cloud(30, 5, 7))
    points = Differences(one, other)
    solver = InteriorPoint()
    queries = torch.zeros(2, 5).double()
    queries[1] += 0.1
    found = solver.project(solver.prepare(points), queries, tolerance=1e-6, max_steps=100)
    for row, query in enumerate(queries):
        used = found.support[row] >= 0
        weights = found.weights[row][used]
        assert (weights > 0).all()
        assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
        reached = weights @ points.take(found.support[row][used])
        torch.testing.assert_close(reached, query, rtol=0, atol=1e-10)


def test_one_step_is_reported() -> None:
    one, other = cloud(80, 10, 8), cloud(80, 10, 9) + 1
    want, found = separation(one, other), separation(one, other, max_steps=1)
    assert found.status.tolist() == [Status.MAX_STEPS]
    assert torch.isnan(found.distance).all()
    assert float(found.lower_bound) <= float(want.distance)


def test_identical_points() -> None:
    same = torch.full((4, 3), 2.0).double()
    assert separation(same, same).intersect.tolist() == [1]
    assert float(separation(same, same + 1).distance) == pytest.approx(3**0.5, rel=1e-9)
    weights, steps = shortest_weights(0 * same, (1, 3), tolerance=1e-6, max_steps=5)
    assert weights.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert steps == 0


def test_too_many_numbers_are_rejected_before_any_is_read() -> None:
    with pytest.raises(ArgumentError, match="at most 20 numbers"):
        InteriorPoint(max_elements=20).prepare(
            Differences(FeatureBank(cloud(4, 6, 0)), cloud_bank())
        )
    solver, points = InteriorPoint(), Differences(cloud_bank(), cloud_bank())
    with pytest.raises(ArgumentError, match="exclude"):
        solver.project(
            solver.prepare(points),
            torch.zeros(1, 6).double(),
            exclude=torch.tensor([[0]]),
            tolerance=1e-6,
            max_steps=9,
        )


def cloud_bank() -> FeatureBank:
    return FeatureBank(cloud(3, 6, 1))
