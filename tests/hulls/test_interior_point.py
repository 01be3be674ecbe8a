"""The interior-point solver on pairs of hulls, against the default and exact forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import ArgumentError, FeatureBank, HullSeparation, Status, hull_separation
from fsboundary.builtin.solvers.interior_point import InteriorPoint
from fsboundary.geometry.differences import Differences
from fsboundary.geometry.interior_point import shortest_weights
from hulls.oracles import cloud, rotation


def separation(one: Tensor, other: Tensor, **options: object) -> HullSeparation:
    labels = torch.tensor([0] * len(one) + [1] * len(other))
    bank = FeatureBank(torch.cat([one, other]), labels)
    options = {"solver": "interior_point"} | options
    return hull_separation(bank, 0, 1, **options)  # type: ignore[arg-type]  # options of one call


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
    want, found = separation(one, other, solver="active_set"), separation(one, other)
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
    # each of the first points alone has a coordinate of its own, so its weight must be 0
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


def test_the_answer_turns_with_the_points() -> None:
    one, other, turn = cloud(25, 6, 3), cloud(20, 6, 4) + 1.5, rotation(6, 5)
    want, found = separation(one, other), separation(7 * one @ turn + 3, 7 * other @ turn + 3)
    assert float(found.distance) == pytest.approx(7 * float(want.distance), rel=2e-6)


def test_nothing_is_lost_far_from_the_origin() -> None:
    # whole numbers: the translation itself loses nothing
    one, other = (64 * cloud(40, 4, 2)).round(), (64 * cloud(30, 4, 3)).round() + 160
    want, found = separation(one, other), separation(one + 2.0**36, other + 2.0**36)
    assert found.ok.all()
    assert float(found.lower_bound) == pytest.approx(float(want.distance), rel=1e-6)


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


def test_one_step_tells_so() -> None:
    one, other = cloud(80, 10, 8), cloud(80, 10, 9) + 1
    want, found = separation(one, other), separation(one, other, max_steps=1)
    assert found.status.tolist() == [Status.MAX_STEPS]
    assert torch.isnan(found.distance).all()
    assert float(found.lower_bound) <= float(want.distance)


def test_points_that_are_all_one() -> None:
    same = torch.full((4, 3), 2.0).double()
    assert separation(same, same).intersect.tolist() == [1]
    assert float(separation(same, same + 1).distance) == pytest.approx(3**0.5, rel=1e-9)
    weights, steps = shortest_weights(0 * same, (1, 3), tolerance=1e-6, max_steps=5)
    assert weights.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert steps == 0


def test_too_many_numbers_are_refused_before_any_is_read() -> None:
    with pytest.raises(ArgumentError, match="at most 20 numbers"):
        InteriorPoint(most=20).prepare(Differences(FeatureBank(cloud(4, 6, 0)), cloud_bank()))
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
