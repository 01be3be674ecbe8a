"""Distance between two hulls, against Clarabel, exact closed forms and the points of both sides."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import ArgumentError, FeatureBank, HullSeparation, Status, hull_separation
from fsboundary.builtin.hull_solvers.nnls import Nnls
from fsboundary.geometry.hulls.separation import Differences
from support.hulls.oracles import clarabel_distances, cloud, rotation, squared_distance
from support.hulls.pairs import separation, two_class_bank

SOLVERS = ["active_set", "interior_point"]
"""Solvers that are meant for pairs of hulls."""


def by_clarabel(one: Tensor, other: Tensor) -> float:
    """Return the distance of 0 from the hull of all differences, which are formed explicitly."""
    differences = (one[:, None] - other[None]).flatten(0, 1)
    return float(clarabel_distances(differences, torch.zeros_like(one[:1]))[0])


def check(one: Tensor, other: Tensor, found: HullSeparation) -> None:
    """Check everything that a result claims about its numbers against the points."""
    points = torch.cat([one, other]).double()
    assert found.classes.tolist() == [[3, 5]]
    for side, (low, high) in enumerate([(0, len(one)), (len(one), len(points))]):
        support, weights = found.support[0, side], found.weights[0, side]
        used = support >= 0
        assert ((support[used] >= low) & (support[used] < high)).all()
        assert (weights[~used] == 0).all()
        assert (weights >= 0).all()
        assert abs(float(weights.sum()) - 1) <= 1e-12
        torch.testing.assert_close(
            weights[used] @ points[support[used]], found.points[0, side], rtol=1e-12, atol=1e-12
        )
    if found.intersect[0] == -1:
        assert torch.isnan(found.common_point).all()
        assert (points[: len(one)] @ found.normal[0] <= found.offset[0, 0]).all()
        assert (points[len(one) :] @ found.normal[0] >= found.offset[0, 1]).all()
        assert float(found.normal.norm()) == pytest.approx(1, rel=1e-12)
        between = float(found.offset[0, 1] - found.offset[0, 0])
        assert between == pytest.approx(float(found.lower_bound), rel=1e-6, abs=1e-9)
        apart = found.points[0, 1] - found.points[0, 0]
        assert float(apart.norm()) == pytest.approx(float(found.distance), rel=1e-9)
    else:
        assert torch.isnan(found.normal).all()
        assert torch.isnan(found.offset).all()


@pytest.mark.parametrize(("n", "m", "d"), [(8, 9, 2), (12, 7, 3), (20, 20, 6), (5, 6, 12)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 5.0])
def test_agrees_with_clarabel(n: int, m: int, d: int, shift: float) -> None:
    one, other = cloud(n, d, n), cloud(m, d, m + 100) + shift / d**0.5
    found, want = separation(one, other), by_clarabel(one, other)
    assert found.ok.all()
    check(one, other, found)
    assert float(found.distance) == pytest.approx(want, rel=1e-6, abs=1e-7)
    assert float(found.lower_bound) <= want * (1 + 1e-9) + 1e-9
    assert found.intersect[0] == (1 if want < 1e-7 else -1)


def test_two_squares_face_to_face() -> None:
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = separation(square, square + torch.tensor([3.0, 0.5]))
    check(square, square + torch.tensor([3.0, 0.5]), found)
    assert float(found.distance) == pytest.approx(2.0, rel=1e-9)
    assert float(found.lower_bound) == pytest.approx(2.0, rel=1e-9)
    assert found.normal[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert found.offset[0].tolist() == pytest.approx([1.0, 3.0], rel=1e-9)


SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).double()
MEETING = {
    "touching at a corner": SQUARE + 1.0,
    "touching at an edge": SQUARE + torch.tensor([1.0, 0.25]),
    "nested": 0.2 * SQUARE + 0.3,
    "the same": SQUARE,
    "crossing without a vertex inside": torch.tensor([[-1.0, 0.5], [2.0, 0.6]]).double(),
    "a point inside": torch.tensor([[0.25, 0.75]]).double(),
    "a copy of a vertex": SQUARE[3:],
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", MEETING)
def test_hulls_that_meet_have_a_common_point(kind: str, solver: str) -> None:
    found = separation(SQUARE, MEETING[kind], solver=solver)
    check(SQUARE, MEETING[kind], found)
    assert found.intersect.tolist() == [1]
    assert found.ok.all()
    assert float(found.lower_bound) <= float(found.distance) <= 1e-8
    common = found.common_point
    assert float(clarabel_distances(SQUARE, common)) <= 1e-7
    assert float(clarabel_distances(MEETING[kind], common)) <= 1e-7


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["points", "point and cloud", "copies", "lines", "flat"])
def test_degenerate_hulls(kind: str, solver: str) -> None:
    one, other = cloud(12, 5, 0), cloud(9, 5, 1) + 3
    if kind == "points":
        one, other = one[:1], other[:1]
    if kind == "point and cloud":
        one = one[:1]
    if kind == "copies":
        one, other = one[:1].repeat(6, 1), other.repeat(3, 1)
    if kind == "lines":
        line = torch.linspace(-1, 1, 7).double()[:, None]
        one, other = line * one[:1], line * one[1:2] + 3
    if kind == "flat":
        one[:, 2:], other[:, 2:] = 0, 1
    found = separation(one, other, solver=solver)
    check(one, other, found)
    assert found.ok.all()
    assert float(found.distance) == pytest.approx(by_clarabel(one, other), rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(derandomize=True, max_examples=20, deadline=None)
@given(n=st.integers(1, 7), m=st.integers(1, 7), d=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_on_a_grid_full_of_ties(n: int, m: int, d: int, seed: int, solver: str) -> None:
    g = torch.Generator().manual_seed(seed)
    one = torch.randint(0, 4, (n, d), generator=g).double()
    other = torch.randint(0, 4, (m, d), generator=g).double() + seed % 4
    found = separation(one, other, solver=solver)
    check(one, other, found)
    assert found.ok.all()
    assert float(found.distance) == pytest.approx(by_clarabel(one, other), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3),
    m=st.integers(1, 3),
    d=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    case=st.sampled_from([(0.0, 1.0), (1e6, 1.0), (0.0, 1e-3), (1e6, 1e-3)]),
)
def test_no_bound_is_false_without_any_rounding(
    n: int, m: int, d: int, seed: int, case: tuple[float, float], solver: str
) -> None:
    (shift, apart), g = case, torch.Generator().manual_seed(seed)
    one = torch.randn(n, d, generator=g) + shift
    rows = torch.randint(0, n, (m,), generator=g)
    other = one[rows] + apart * torch.randn(m, d, generator=g)
    found = separation(one, other, solver=solver)
    # differences of float32 numbers of one size are exact in float64
    differences = (one.double()[:, None] - other.double()[None]).flatten(0, 1)
    exact = squared_distance(differences, torch.zeros(d).double())
    assert Fraction(float(found.lower_bound)) ** 2 <= exact
    assert found.ok.all()
    assert exact <= Fraction(float(found.distance)) ** 2
    if found.intersect[0] == -1:
        normal = [Fraction(x) for x in found.normal[0].tolist()]
        along = [
            sum(Fraction(a) * b for a, b in zip(point, normal, strict=True))
            for point in torch.cat([one, other]).tolist()
        ]
        assert max(along[:n]) <= Fraction(float(found.offset[0, 0]))
        assert min(along[n:]) >= Fraction(float(found.offset[0, 1]))


def test_a_bank_on_disk_answers_as_one_in_memory(tmp_path: Path) -> None:
    bank = two_class_bank(cloud(30, 3, 12), cloud(20, 3, 13) + 3)
    bank.save(tmp_path / "bank")
    found = hull_separation(FeatureBank.open(tmp_path / "bank"), 3, 5)
    want = hull_separation(bank, 3, 5)
    torch.testing.assert_close(found.distance, want.distance, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.lower_bound, want.lower_bound, rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1.0, 1e6, 1e150])
def test_scale_rotation_permutation_and_exchange(scale: float, solver: str) -> None:
    one, other = cloud(40, 4, 2), cloud(30, 4, 3) + 2.5
    want, turn = separation(one, other), rotation(4, 4)
    found = separation((other.flip(0) @ turn) * scale, (one.flip(0) @ turn) * scale, solver=solver)
    assert found.ok.all()
    assert found.intersect.tolist() == [-1]
    assert float(found.distance / scale) == pytest.approx(float(want.distance), rel=1e-6)
    assert float(found.lower_bound / scale) == pytest.approx(float(want.distance), rel=1e-6)
    torch.testing.assert_close(found.normal @ turn.T, -want.normal, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_is_lost_far_from_the_origin(solver: str) -> None:
    # whole numbers: the translation itself loses nothing
    one, other = (64 * cloud(40, 4, 2)).round(), (64 * cloud(30, 4, 3)).round() + 160
    want = separation(one, other)
    found = separation(one + 2.0**36, other + 2.0**36, solver=solver)
    assert found.ok.all()
    assert float(found.distance) == pytest.approx(float(want.distance), rel=1e-6)
    assert float(found.lower_bound) == pytest.approx(float(want.distance), rel=1e-6)


def test_pairs_at_once_are_those_one_by_one() -> None:
    labels = torch.arange(60) % 4
    points = cloud(60, 3, 5) + 4 * cloud(4, 3, 6)[labels]
    bank, (i, j) = FeatureBank(points, labels), torch.combinations(torch.arange(4)).T
    found = hull_separation(bank, i, j)
    assert found.support.shape[:2] == (6, 2)
    for row, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True)):
        alone = hull_separation(bank, a, b)
        assert torch.equal(alone.distance, found.distance[row : row + 1])
        assert torch.equal(alone.lower_bound, found.lower_bound[row : row + 1])
        for side, k in enumerate((a, b)):
            used = found.support[row, side][found.support[row, side] >= 0]
            assert (labels[used] == k).all()


def test_few_steps_and_other_solvers_keep_valid_bounds() -> None:
    one, other = cloud(300, 12, 7), cloud(300, 12, 8) + 1.5
    want = separation(one, other)
    hurried = separation(one, other, max_steps=1)
    assert float(hurried.lower_bound) <= float(want.distance)
    assert hurried.status.tolist() == [Status.MAX_STEPS]
    assert torch.isnan(hurried.distance).all()
    assert torch.isnan(hurried.points).all()
    rough = separation(one, other, solver="away_steps", tolerance=1e-2)
    assert float(rough.lower_bound) <= float(want.distance) * (1 + 1e-12)
    by_nnls = separation(one[:20], other[:20], solver=Nnls())
    assert float(by_nnls.distance) == pytest.approx(by_clarabel(one[:20], other[:20]), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_differences_are_priced_as_if_each_were_formed(k: int) -> None:
    one, other = (2 * cloud(9, 3, 9)).round(), (2 * cloud(5, 3, 10)).round()
    points = Differences(FeatureBank(one), FeatureBank(other))
    formed = FeatureBank((one[:, None] - other[None]).flatten(0, 1))
    directions = (4 * cloud(6, 3, 11)).round()
    exclude = torch.randint(-1, 45, (6, 7), generator=torch.Generator().manual_seed(0))
    for skip in (None, exclude):
        values, indices = points.price(directions, k, skip)
        want, where = formed.price(directions, k, skip)
        assert torch.equal(values, want)
        assert torch.equal(indices >= 0, where >= 0)
        # among ties the order is free
        products = torch.linalg.vecdot(points.take(indices.clamp_min(0)), directions[:, None])
        assert torch.equal(torch.where(indices >= 0, products, torch.inf), want)
        left_out = torch.where(exclude < 0, -2, exclude)
        assert skip is None or not (indices[:, :, None] == left_out[:, None]).any()
    assert torch.equal(points.take(torch.arange(45)), formed.take(torch.arange(45)))
    assert float(points.moments().sum_of_squares) == pytest.approx(
        float(formed.moments().sum_of_squares)
    )
    torch.testing.assert_close(points.moments().mean, formed.moments().mean)
    assert float(points.moments().largest) >= float(formed.moments().largest)


PAIR = two_class_bank(cloud(3, 2, 0), cloud(3, 2, 1))


@pytest.mark.parametrize(
    ("i", "j", "message"),
    [
        (3, 4, r"j: got \[4\], which no row has; wanted classes of the bank.*3, 5"),
        (-1, 5, r"i: got \[-1\], which no row has"),
        (3, 3, r"i, j: got \[3, 3\] in row 0; wanted no repeats.*itself"),
        (3.0, 5, "i: got 3.0; wanted one integer"),
        (3, "5", "j: got '5'; wanted one integer"),
        (torch.tensor([3.0]), 5, "i: got dtype torch.float32"),
        (
            torch.tensor([3, 3]),
            torch.tensor([5]),
            r"j: got shape \(1,\); wanted a tensor \(2,\).*one j for each i",
        ),
        (
            torch.tensor([], dtype=torch.int64),
            torch.tensor([], dtype=torch.int64),
            r"i: got shape \(0,\).*not empty",
        ),
    ],
)
def test_rejected(i: object, j: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hull_separation(PAIR, i, j)  # type: ignore[arg-type]  # the wrong type is what is tested


def test_a_bank_without_labels_is_rejected() -> None:
    with pytest.raises(ArgumentError, match="labels: got a bank without labels"):
        hull_separation(FeatureBank(cloud(4, 2, 0)), 0, 1)
    with pytest.raises(ArgumentError, match="tolerance: got 0"):
        hull_separation(PAIR, 3, 5, tolerance=0)
