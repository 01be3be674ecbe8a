"""Every hull solver against Clarabel, closed forms, exact fractions and invariances."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import Status
from fsboundary.banks import FeatureBank
from fsboundary.core.results import HullProjection
from fsboundary.hulls import class_hull_distances, hull_projection
from fsboundary.plugins import create
from support.hulls import oracles
from support.hulls.oracles import cloud, rotation

SOLVERS = ("active_set", "away_steps", "cvxpy", "interior_point", "nnls")

REACH = {"active_set": 0.0, "away_steps": 0.1, "cvxpy": 0.0, "interior_point": 0.0, "nnls": 0.0}
"""Rows this far from the hull must be certified. Frank-Wolfe slows down as the distance falls, and
hardly moves on a face that contains the query; the others must certify every row of these tests."""

RTOL, ATOL = 1e-6, 2e-9  # default; the absolute tolerance is 1e-9 of the scale, here 1 to 2

each_solver = pytest.mark.parametrize("solver", SOLVERS)


def assert_right(found: HullProjection, want: Tensor, solver: str, scale: float = 1.0) -> None:
    """Compare with distances `want` (B,), known to 1e-9 of the scale: bounds of every row hold."""
    assert (found.lower_bound <= want + ATOL * scale).all()
    error = (found.distance - want).abs()
    assert (error[found.ok] <= (RTOL * want + ATOL * scale)[found.ok]).all()
    assert found.ok[want >= REACH[solver] * scale].all()
    assert ((found.weights > 0) == (found.support >= 0)).all()
    ones = torch.ones_like(found.distance)
    torch.testing.assert_close(found.weights.sum(dim=1), ones, rtol=0, atol=1e-12)


def _cross_polytope(d: int) -> Tensor:
    return torch.cat([torch.eye(d), -torch.eye(d)]).double()


CLOSED_FORMS = {
    "cube": (
        torch.tensor(list(product([-1.0, 1.0], repeat=4))).double(),
        oracles.onto_cube,
    ),
    "simplex": (torch.eye(5).double(), oracles.onto_simplex),
    "cross-polytope": (_cross_polytope(6), oracles.onto_cross_polytope),
    "point": (torch.zeros(1, 3).double(), torch.zeros_like),
}


@each_solver
@pytest.mark.parametrize("shape", CLOSED_FORMS)
def test_closed_forms(shape: str, solver: str) -> None:
    points, nearest = CLOSED_FORMS[shape]
    d = points.shape[1]
    queries = torch.cat([1.5 * cloud(8, d, 0), 0.1 * cloud(3, d, 1), 30 * cloud(3, d, 2)])
    found = hull_projection(FeatureBank(points), queries, solver=solver)
    want = nearest(queries)
    assert_right(found, (queries - want).norm(dim=1), solver)
    # |p - p*|² <= distance² - distance*², so points have half of the digits of the distance
    near = 2e-3 * (1 + queries.norm(dim=1, keepdim=True))
    assert ((found.points - want).abs() <= near)[found.ok].all()


@each_solver
@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (3, 6), (12, 12), (40, 3), (60, 10)])
def test_agrees_with_clarabel(n: int, d: int, solver: str) -> None:
    points, queries = cloud(n, d, n + d), 1.5 * cloud(8, d, 1)
    found = hull_projection(FeatureBank(points), queries, solver=solver)
    assert_right(found, oracles.clarabel_distances(points, queries), solver, scale=d**0.5)
    if solver != "away_steps":  # it also keeps generators with little weight
        used = (found.support >= 0).sum(dim=1)
        if solver == "interior_point":  # inside a hull all points carry weight
            used = used.where(found.membership < 0, 1)
        # cvxpy's point of the hull may lie off its face by rounding, which needs one more
        extra = solver == "cvxpy"
        assert (used <= torch.where(found.membership < 0, d + extra, d + 1)).all()


def _degenerate(kind: str) -> Tensor:
    points = cloud(12, 4, 3)
    match kind:
        case "duplicates":
            return points.repeat(3, 1)
        case "collinear":
            return torch.linspace(-1, 1, 12).double()[:, None] * points[:1]
        case "flat":
            return points[:, :2] @ cloud(2, 4, 4)
        case "dead":
            return points.clamp_min(0.0) * torch.tensor([1.0, 1.0, 1.0, 0.0])
        case _:
            return points[:1].repeat(12, 1)


@each_solver
@pytest.mark.parametrize("kind", ["duplicates", "collinear", "flat", "dead", "one point repeated"])
def test_degenerate_hulls_and_queries_on_them(kind: str, solver: str) -> None:
    points = _degenerate(kind)
    vertex, edge = points[:2], (0.3 * points[0] + 0.7 * points[1])[None]
    queries = torch.cat([cloud(6, 4, 5), vertex, edge, points.mean(dim=0, keepdim=True)])
    found = hull_projection(FeatureBank(points), queries, solver=solver)
    want = torch.cat([oracles.clarabel_distances(points, queries[:6]), torch.zeros(4)])
    assert_right(found, want, solver)
    assert (found.membership[6:][found.ok[6:]] == 1).all()
    assert (found.membership[6:] != -1).all()


@each_solver
def test_a_batch_equals_a_loop_and_any_order_of_generators(solver: str) -> None:
    points, queries = cloud(40, 5, 6), 2 * cloud(8, 5, 7)
    bank = FeatureBank(points)
    together = hull_projection(bank, queries, solver=solver)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    permuted = hull_projection(FeatureBank(points[order]), queries, solver=solver)
    rows = [hull_projection(bank, q[None], solver=solver).distance for q in queries]
    # each is within the tolerance of the true distance
    torch.testing.assert_close(torch.cat(rows), together.distance, rtol=2 * RTOL, atol=ATOL)
    torch.testing.assert_close(permuted.distance, together.distance, rtol=2 * RTOL, atol=ATOL)
    assert torch.equal(permuted.membership, together.membership)


@each_solver
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rotation_translation_and_scale(scale: float, solver: str) -> None:
    points, queries = cloud(30, 5, 8), 2 * cloud(6, 5, 9)
    want = hull_projection(FeatureBank(points), queries, solver=solver)
    turn, shift = rotation(5, 10), 3 * cloud(1, 5, 11)
    moved = scale * (points @ turn + shift), scale * (queries @ turn + shift)
    found = hull_projection(FeatureBank(moved[0]), moved[1], solver=solver)
    assert torch.equal(found.membership, want.membership)
    torch.testing.assert_close(
        found.distance, scale * want.distance, rtol=2 * RTOL, atol=ATOL * scale
    )


@each_solver
def test_far_from_the_origin(solver: str) -> None:
    points, queries = cloud(30, 4, 8), 3 * cloud(6, 4, 9)
    want = hull_projection(FeatureBank(points), queries)
    found = hull_projection(FeatureBank(points + 1e6), queries + 1e6, solver=solver)
    # coordinates of 1e6 represent distances to 1e-10, and bounds lose about a hundred times that
    assert (found.lower_bound <= want.distance + 1e-8).all()
    assert (found.distance >= want.lower_bound - 1e-8)[found.ok].all()
    assert found.ok[want.distance > 0.5].all()


@each_solver
def test_leave_out_and_labels(solver: str) -> None:
    points = cloud(24, 3, 12)
    points[20:] = points[:4]  # copies are left out together
    labels = torch.arange(24) % 4 % 3
    bank, rows = FeatureBank(points, labels), torch.arange(4)
    alone = hull_projection(bank, points[:4], leave_out=rows, solver=solver)
    within = hull_projection(bank, points[:4], labels=labels[:4], leave_out=rows, solver=solver)
    other = hull_projection(bank, points[:4], labels=(labels[:4] + 1) % 3, solver=solver)
    for row in range(4):
        rest = (points != points[row]).any(dim=1)
        same = rest & (labels == labels[row])
        next_class = labels == (labels[row] + 1) % 3
        for found, members in ((alone, rest), (within, same), (other, next_class)):
            want = oracles.clarabel_distances(points[members], points[row : row + 1])
            assert_right(found.take([row]), want, solver)
            used = found.support[row][found.support[row] >= 0]
            assert members[used].all()


def test_class_distances_are_those_of_each_class() -> None:
    points, labels = cloud(20, 3, 14), torch.arange(20) % 2
    queries = 2 * cloud(5, 3, 15)
    table = class_hull_distances(FeatureBank(points, labels), queries)
    for k in range(2):
        want = oracles.clarabel_distances(points[labels == k], queries)
        torch.testing.assert_close(table[:, k], want, rtol=RTOL, atol=ATOL)


@each_solver
def test_one_step_keeps_valid_bounds(solver: str) -> None:
    points, queries = cloud(3000, 30, 16), 1.5 * cloud(4, 30, 17)
    want = oracles.clarabel_distances(points, queries)
    hurried = hull_projection(FeatureBank(points), queries, solver=solver, max_steps=1)
    assert (hurried.lower_bound <= want + ATOL).all()
    assert (hurried.distance >= want - ATOL)[hurried.ok].all()
    if solver != "nnls":  # one call of scipy's routine is one step, and returns the whole solution
        assert (hurried.status[~hurried.ok] == Status.MAX_STEPS).all()
        assert not hurried.ok.all()
        assert (hurried.steps <= 1).all()


@each_solver
def test_answers_repeat_and_nothing_is_changed(solver: str) -> None:
    points, queries = cloud(40, 4, 18), 2 * cloud(6, 4, 19)
    rows = torch.tensor([-1, 0, 1, 2, 3, -1])
    before = points.clone(), queries.clone(), rows.clone()
    state = torch.get_rng_state()
    bank = FeatureBank(points)
    results = [
        hull_projection(FeatureBank(points), queries, leave_out=rows, solver=create(*choice))
        for choice in [("hull_solver", solver)] * 2
    ]
    for name, value in results[0].to_dict().items():
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(getattr(results[1], name)))
    assert torch.equal(torch.get_rng_state(), state)
    for now, original in zip((points, queries, rows), before, strict=True):
        assert torch.equal(now, original)
    assert torch.equal(bank.features, before[0])


@st.composite
def tiny_problems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draw up to six points and two queries on a small grid: many ties, repeats and flat sets."""
    d = draw(st.integers(1, 3))
    number = st.integers(-2, 2).map(float) | st.sampled_from([1 / 3, 1e-3, 7.25])
    row = st.lists(number, min_size=d, max_size=d)
    points = draw(st.lists(row, min_size=1, max_size=6))
    queries = draw(st.lists(row, min_size=2, max_size=2))
    return torch.tensor(points, dtype=torch.float64), torch.tensor(queries, dtype=torch.float64)


@settings(max_examples=40)
@given(tiny_problems())
def test_bounds_contain_the_exact_distance(problem: tuple[Tensor, Tensor]) -> None:
    points, queries = problem
    exact = [oracles.squared_distance(points, query) for query in queries]
    bank = FeatureBank(points)
    size = float(points.abs().max() + queries.abs().max())
    for solver in SOLVERS:
        found = hull_projection(bank, queries, solver=solver)
        for row, square in enumerate(exact):
            assert Fraction(float(found.lower_bound[row])) ** 2 <= square
            if found.ok[row]:
                # the distance is that of the weights, up to rounding
                assert (
                    Fraction(float(found.distance[row])) + Fraction(1e-14 * size)
                ) ** 2 >= square
            if found.membership[row] == -1:
                assert square > 0
        if solver == "active_set":
            assert found.ok.all()
