"""Leave-one-out distances, distances relative to them, and the nearest hull."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fsboundary import (
    ArgumentError,
    Extrapolation,
    FeatureBank,
    LeaveOneOutDistances,
    NearestHulls,
    Status,
    class_hull_distances,
    extrapolation,
    hull_projection,
    leave_one_out_distances,
    nearest_hulls,
)
from support.hulls.oracles import clarabel_distances, cloud, rotation


def test_each_row_against_a_bank_without_it() -> None:
    points = torch.cat([cloud(40, 3, 0), cloud(40, 3, 0)[:6]])
    found = leave_one_out_distances(FeatureBank(points))
    assert found.rows.tolist() == list(range(46))
    assert found.ok.all()
    for row in range(46):
        others = points[(points != points[row]).any(dim=1)]
        want = float(clarabel_distances(others, points[row][None]))
        assert float(found.distance[row]) == pytest.approx(want, rel=1e-6, abs=1e-7)
        assert found.membership[row] == (1 if want < 1e-7 else -1)
    assert (found.lower_bound <= found.distance).all()
    assert torch.equal(found.gap, found.distance - found.lower_bound)


def test_each_row_against_its_own_class() -> None:
    points, labels = cloud(30, 3, 1), torch.arange(30) % 3
    bank = FeatureBank(points, labels)
    found = leave_one_out_distances(bank, own_class=True)
    for k in range(3):
        alone = leave_one_out_distances(FeatureBank(points[labels == k]))
        torch.testing.assert_close(found.distance[labels == k], alone.distance)


def test_rows_without_another_point_have_no_hull() -> None:
    points = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    found = leave_one_out_distances(FeatureBank(points, [0, 0, 1, 1]), own_class=True)
    assert found.status.tolist() == [Status.INFEASIBLE, Status.INFEASIBLE, 0, 0]
    assert found.distance.tolist() == [torch.inf, torch.inf, 1.0, 1.0]
    assert torch.isinf(found.lower_bound[:2]).all()
    assert (found.gap[:2] == 0).all()
    for sole in (torch.ones(1, 2), torch.ones(5, 2)):
        alone = leave_one_out_distances(FeatureBank(sole))
        assert (alone.status == Status.INFEASIBLE).all()


def test_a_sample_depends_only_on_the_seed() -> None:
    bank, state = FeatureBank(cloud(50, 3, 2)), torch.random.get_rng_state()
    one, same = leave_one_out_distances(bank, 10), leave_one_out_distances(bank, 10)
    other = leave_one_out_distances(bank, 10, seed=1)
    assert torch.equal(one.rows, same.rows)
    assert one.rows.tolist() == sorted(set(one.rows.tolist()))
    assert not torch.equal(one.rows, other.rows)
    assert torch.equal(torch.random.get_rng_state(), state)
    every = leave_one_out_distances(bank)
    torch.testing.assert_close(one.distance, every.distance[one.rows], rtol=1e-9, atol=1e-9)
    chosen = leave_one_out_distances(bank, torch.tensor([7, 3, 7]))
    assert chosen.rows.tolist() == [7, 3, 7]
    torch.testing.assert_close(chosen.distance, every.distance[[7, 3, 7]], rtol=1e-9, atol=1e-9)


def test_extrapolation_is_relative_to_the_reference() -> None:
    points = cloud(80, 3, 3)
    bank = FeatureBank(points)
    reference = leave_one_out_distances(bank)
    queries = torch.cat([points.mean(dim=0)[None], 1.3 * points[:20], 50 * points[:1]])
    queries[5] = torch.nan
    projection = hull_projection(bank, queries)
    found = extrapolation(projection, reference)
    assert found.status.tolist() == projection.status.tolist()
    assert float(found.distance[0]) == float(found.ratio[0]) == float(found.fraction_below[0]) == 0
    assert torch.isnan(
        torch.stack([found.distance[5], found.ratio[5], found.fraction_below[5]])
    ).all()
    assert float(found.fraction_below[-1]) == 1
    own = torch.where(reference.membership == 1, 0.0, reference.distance)
    for row in [1, 2, 3, 4, *range(6, 22)]:
        nearer = (own < projection.lower_bound[row]).double().mean()
        assert float(found.fraction_below[row]) == pytest.approx(float(nearer), rel=1e-12)
        ratio = 0 if projection.membership[row] == 1 else projection.distance[row] / own.mean()
        assert float(found.ratio[row]) == pytest.approx(float(ratio), rel=1e-12)


def test_extrapolation_where_every_training_row_is_inside() -> None:
    # the middle of a square, and corners that are almost duplicated
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).double()
    bank = FeatureBank(torch.cat([corners, 0.5 * corners + 0.25]))
    reference = leave_one_out_distances(bank, torch.arange(4, 8))
    assert (reference.membership == 1).all()
    found = extrapolation(hull_projection(bank, torch.tensor([[0.5, 0.5], [2.0, 0.5]])), reference)
    assert found.ratio.tolist() == [0.0, torch.inf]
    assert found.fraction_below.tolist() == [0.0, 1.0]


NEAR = {"rtol": 2e-6, "atol": 2e-8}  # each distance is within its tolerance, 1e-6, of the true one


@pytest.mark.parametrize(
    ("scale", "shift"), [(1e-150, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e150, 0.0), (1.0, 1e5)]
)
def test_invariance(scale: float, shift: float) -> None:
    points, labels = cloud(60, 3, 4), torch.arange(60) % 2
    queries, turn = 2 * cloud(10, 3, 5), rotation(3, 6)

    def compute(x: Tensor, z: Tensor) -> tuple[LeaveOneOutDistances, NearestHulls, Extrapolation]:
        bank = FeatureBank(x, labels)
        own = leave_one_out_distances(bank)
        return own, nearest_hulls(bank, z), extrapolation(hull_projection(bank, z), own)

    want = compute(points, queries)
    found = compute((points @ turn) * scale + shift, (queries @ turn) * scale + shift)
    torch.testing.assert_close(found[0].distance / scale, want[0].distance, **NEAR)
    torch.testing.assert_close(found[1].distances / scale, want[1].distances, **NEAR)
    torch.testing.assert_close(found[2].ratio, want[2].ratio, **NEAR)
    assert torch.equal(found[1].label, want[1].label)
    assert torch.equal(found[1].status, want[1].status)


def test_the_nearest_hull() -> None:
    labels = torch.arange(90) % 3 * 2
    points = cloud(90, 4, 7) + 4 * cloud(3, 4, 8)[labels // 2]
    bank, queries = FeatureBank(points, labels), 4 * cloud(25, 4, 9)
    queries[3, 1] = torch.inf
    found, table = nearest_hulls(bank, queries), class_hull_distances(bank, queries)
    assert found.classes.tolist() == [[0, 2, 4]] * 25
    torch.testing.assert_close(found.distances, table, equal_nan=True)
    assert found.status[3] == Status.NOT_FINITE
    assert found.label[3] == -1
    assert torch.isnan(torch.stack([found.distance[3], found.runner_up_gap[3]])).all()
    fine = torch.arange(25) != 3
    assert torch.equal(found.label[fine], table[fine].argmin(dim=1) * 2)
    for row in fine.nonzero()[:, 0].tolist():
        exact = torch.stack(
            [clarabel_distances(points[labels == k], queries[row][None])[0] for k in (0, 2, 4)]
        ).sort()
        assert float(found.distance[row]) == pytest.approx(
            float(exact.values[0]), rel=1e-6, abs=1e-7
        )
        margin = float(exact.values[1] - exact.values[0])
        assert float(found.runner_up_gap[row]) == pytest.approx(margin, rel=1e-4, abs=1e-6)
        assert found.status[row] == Status.CONVERGED
        assert found.label[row] == 2 * exact.indices[0]
        alone = nearest_hulls(bank, queries[row][None])
        torch.testing.assert_close(alone.distances[0], found.distances[row], **NEAR)


def test_a_row_left_out_of_every_class_is_as_if_it_had_never_been_there() -> None:
    labels = torch.arange(40) % 3
    points = cloud(40, 4, 20)
    points, labels = torch.cat([points, points[:2]]), torch.cat([labels, labels[:2]])
    points, labels = torch.cat([points, cloud(1, 4, 21)]), torch.cat([labels, torch.tensor([3])])
    bank, rows = FeatureBank(points, labels), torch.arange(43)
    found = nearest_hulls(bank, points, leave_out=rows)
    table = class_hull_distances(bank, points, leave_out=rows)
    torch.testing.assert_close(found.distances, table)
    for row in range(43):
        kept = (points != points[row]).any(dim=1)
        alone = nearest_hulls(FeatureBank(points[kept], labels[kept]), points[row][None])
        own = found.distances[row, : alone.distances.shape[1]]
        torch.testing.assert_close(own, alone.distances[0], **NEAR)
        assert found.label[row] == alone.label[0]
    # row 42 is the only one of its class, which then has no hull
    assert torch.isinf(torch.stack([found.distances[42, 3], found.lower_bounds[42, 3]])).all()
    assert torch.isfinite(found.distances[:42]).all()
    sole = nearest_hulls(FeatureBank(points[:1], [0]), points[:1], leave_out=torch.tensor([0]))
    assert (sole.label.tolist(), sole.status.tolist()) == ([-1], [Status.UNDECIDED])
    with pytest.raises(ArgumentError, match="leave_out"):
        nearest_hulls(bank, points, leave_out=rows + 1)


def test_a_row_in_two_hulls_or_between_them_is_not_certified() -> None:
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    points = torch.cat([square, square + 1, square + torch.tensor([5.0, 0.0])])
    bank = FeatureBank(points, [0] * 4 + [1] * 4 + [2] * 4)
    found = nearest_hulls(bank, torch.tensor([[1.5, 1.5], [0.5, 0.5], [4.0, 1.5], [9.0, 1.0]]))
    assert found.status.tolist() == [Status.UNDECIDED, 0, Status.UNDECIDED, 0]
    assert (found.runner_up_gap[[0, 2]] <= 0).all()
    assert found.label[[0, 1, 3]].tolist() == [0, 0, 2]
    assert found.label[2] in (1, 2)
    assert float(found.runner_up_gap[3]) == pytest.approx(4.0, rel=1e-6)


def test_a_sole_class_is_the_nearest() -> None:
    found = nearest_hulls(FeatureBank(cloud(5, 2, 10), [7] * 5), cloud(3, 2, 11))
    assert found.label.tolist() == [7, 7, 7]
    assert found.ok.all()
    assert torch.isinf(found.runner_up_gap).all()
    none = nearest_hulls(FeatureBank(cloud(5, 2, 10), [7] * 5), torch.zeros(0, 2))
    assert none.distances.shape == (0, 1)


def test_a_solver_that_stops_early_certifies_only_what_its_bounds_prove() -> None:
    labels = torch.arange(400) % 4
    bank = FeatureBank(cloud(400, 8, 12) + cloud(4, 8, 13)[labels], labels)
    queries = 2 * cloud(30, 8, 14)
    want, rough = nearest_hulls(bank, queries), nearest_hulls(bank, queries, max_steps=1)
    sure = rough.ok
    assert torch.equal(rough.label[sure], want.label[sure])
    assert (rough.lower_bounds <= want.distances).all()
    assert (rough.label[rough.distances.isnan().all(dim=1)] == -1).all()


BANK = FeatureBank(cloud(5, 2, 0))
OWN = LeaveOneOutDistances(
    rows=torch.tensor([0]),
    distance=torch.tensor([torch.inf]).double(),
    lower_bound=torch.tensor([torch.inf]).double(),
    gap=torch.zeros(1).double(),
    membership=torch.tensor([-1]),
    status=torch.tensor([1]),
    steps=torch.tensor([0]),
)
REJECTED: list[tuple[Callable[[], object], str]] = [
    (lambda: leave_one_out_distances(BANK, 0), "sample: got 0; wanted an integer, at least 1"),
    (lambda: leave_one_out_distances(BANK, True), "sample: got True"),
    (lambda: leave_one_out_distances(BANK, torch.ones(2)), "sample: got dtype torch.float32"),
    (
        lambda: leave_one_out_distances(BANK, torch.tensor([0, 5])),
        "sample: got rows from 0 to 5; wanted.*rows 0 to 4",
    ),
    (
        lambda: leave_one_out_distances(BANK, own_class=True),
        "labels: got a bank without labels",
    ),
    (lambda: leave_one_out_distances(BANK, tolerance=-1), "tolerance: got -1"),
    (
        lambda: extrapolation(leave_one_out_distances(BANK), None),  # type: ignore[arg-type]  # the wrong types are what is tested
        "projection: got a LeaveOneOutDistances; wanted a HullProjection",
    ),
    (
        lambda: extrapolation(hull_projection(BANK, cloud(1, 2, 1)), OWN),
        "reference: got no finite distance",
    ),
    (lambda: nearest_hulls(BANK, cloud(1, 2, 1)), "labels: got a bank without labels"),
    (lambda: nearest_hulls(BANK, cloud(1, 3, 1)), r"features: got shape \(1, 3\)"),
]


@pytest.mark.parametrize(("call", "message"), REJECTED)
def test_rejected(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
