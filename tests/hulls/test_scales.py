"""Hulls of very different scales, and nearly equal ones, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import pytest
import torch
from torch import Tensor

from fsboundary import (
    FeatureBank,
    HullProjection,
    Status,
    hull_projection,
    hull_vertices,
    leave_one_out_distances,
    nearest_hulls,
)
from fsboundary.geometry.hulls.certify import INSIDE, OUTSIDE
from support.hulls.exact import nearest_weights, shifted
from support.hulls.pairs import separation

SOLVERS = ("active_set", "away_steps", "nnls", "interior_point")
DIGITS = 10**30


def exact_distance(points: Tensor, query: Tensor) -> float:
    """Return the distance of `query` (d,) to the hull of `points` (n,d), without any rounding."""
    return root(squared_distance(points, query))


def squared_distance(points: Tensor, query: Tensor) -> Fraction:
    """Return the squared distance by Wolfe's method in fractions."""
    away = shifted(points.numpy(), query.numpy(), True)
    x = (nearest_weights(away)[:, None] * away).sum(axis=0)
    return Fraction((x * x).sum())


def exact_separation(one: Tensor, other: Tensor) -> float:
    """Return the distance between two hulls, without any rounding."""
    a = shifted(one.numpy(), torch.zeros(one.shape[1]).double().numpy(), True)
    b = shifted(other.numpy(), torch.zeros(one.shape[1]).double().numpy(), True)
    differences = (a[:, None] - b[None]).reshape(-1, one.shape[1])
    x = (nearest_weights(differences)[:, None] * differences).sum(axis=0)
    return root(Fraction((x * x).sum()))


def root(square: Fraction) -> float:
    return float(Fraction(isqrt(square.numerator * DIGITS**2 // square.denominator), DIGITS))


def triangle(scale: float) -> Tensor:
    return scale * torch.tensor([[0.0, 0.0], [3.0, 1.0], [2.0, 1.0]]).double()


def cloud_with_a_far_row(n: int, d: int, far: float) -> Tensor:
    """Return n rows of size 1, one of them replaced by a row at a distance of `far`."""
    points = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).double()
    points[n // 2] = 0.0
    points[n // 2, 0] = far
    return points


def require_consistent(result: HullProjection) -> None:
    """Require that membership, bound, distance and status never contradict each other."""
    inside, outside = result.membership == INSIDE, result.membership == OUTSIDE
    assert (result.lower_bound[inside] == 0).all()
    assert (result.lower_bound[outside] > 0).all()
    assert (outside == (result.lower_bound > 0)).all()
    assert result.ok[inside].all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e8, 1e10, 1e12, 1e15, 1e25, 1e100, 1e160])
def test_a_small_distance_to_an_enormous_hull(scale: float, solver: str) -> None:
    points, query = triangle(scale), torch.tensor([[3.0, 2.0]]).double()
    result = hull_projection(FeatureBank(points), query, solver=solver)
    require_consistent(result)
    assert result.membership.item() == OUTSIDE
    assert result.ok.item()
    assert result.distance.item() == pytest.approx(exact_distance(points, query[0]), rel=2e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("far", [1e9, 1e11, 1e14])
def test_one_enormous_row_puts_nothing_inside(far: float, leave_out: bool, solver: str) -> None:
    points = cloud_with_a_far_row(200, 3, far)
    query = torch.tensor([[0.0, -15.0, 0.0], [0.0, 0.0, 0.1]]).double()
    out = torch.full((2,), 100) if leave_out else None
    result = hull_projection(FeatureBank(points), query, leave_out=out, solver=solver)
    require_consistent(result)
    used = points if out is None else points[torch.arange(200) != 100]
    assert result.ok[0]
    assert result.membership[0] == OUTSIDE
    if solver != "interior_point":  # which puts weight on all points, too many for fractions
        assert result.membership[1] == INSIDE
    assert result.distance[0].item() == pytest.approx(exact_distance(used, query[0]), rel=2e-6)


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_every_statement_holds_for_rows_of_all_scales(seed: int, width: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(2 * width + 3, width, generator=g).double()
    points *= 10.0 ** torch.randint(-6, 12, (len(points), 1), generator=g)
    mixed = torch.rand(3, len(points), generator=g).double()
    queries = torch.cat(
        [
            torch.randn(4, width, generator=g).double(),
            points[:2] + 1e-7,
            mixed / mixed.sum(dim=1, keepdim=True) @ points,
        ]
    )
    result = hull_projection(FeatureBank(points), queries)
    require_consistent(result)
    for row, query in enumerate(queries):
        square = squared_distance(points, query)
        assert Fraction(float(result.lower_bound[row])) ** 2 <= square
        assert result.membership[row] != OUTSIDE or square > 0
        spread = float(
            (result.weights[row] * (points[result.support[row]] - query).norm(dim=1)).sum()
        )
        if result.membership[row] == INSIDE:
            rounding = 1e-15 * (4 * float(query.norm()) + 3 * spread)
            assert square <= Fraction(1.01 * max(1e-9 * spread, rounding)) ** 2


@pytest.mark.parametrize(("count", "width"), [(2, 3), (3, 5)])
@pytest.mark.parametrize("apart", [1e-5, 1e-7, 1e-9, 1e-11])
@pytest.mark.parametrize("seed", range(3))
def test_nearly_equal_hulls(seed: int, apart: float, count: int, width: int) -> None:
    g = torch.Generator().manual_seed(seed)
    one = torch.randn(count, width, generator=g).double()
    other = one + apart * torch.randn(count, width, generator=g).double()
    result, exact = separation(one, other), exact_separation(one, other)
    assert result.ok.all()
    assert result.lower_bound.item() <= exact
    assert result.distance.item() >= exact * (1 - 1e-9)
    assert result.gap.item() <= max(1e-6 * exact, 1e-9 * float(one.norm()))
    # these hulls never meet, and the bound says so
    assert result.intersect.item() == -1
    assert result.lower_bound.item() > 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e10, 1e13])
def test_a_separation_is_never_both(scale: float) -> None:
    one, other = triangle(scale), torch.tensor([[3.0, 2.0], [2.0, 2.5]]).double()
    result, exact = separation(one, other), exact_separation(one, other)
    assert result.lower_bound.item() <= exact
    assert result.intersect.item() == -1 if exact > 0 else result.lower_bound.item() == 0
    assert (result.intersect.item() == -1) == (result.lower_bound.item() > 0)


def test_classes_leave_one_out_and_vertices_agree_with_their_bounds() -> None:
    points = cloud_with_a_far_row(40, 2, 1e11)
    labels = torch.arange(40) % 2
    bank = FeatureBank(points, labels)
    queries = torch.tensor([[0.0, -15.0], [0.1, 0.1], [-3.0, 0.5]]).double()
    found = nearest_hulls(bank, queries)
    for k in (0, 1):
        for row, query in enumerate(queries):
            exact = exact_distance(points[labels == k], query)
            assert found.lower_bounds[row, k] <= exact
            assert found.distances[row, k] == pytest.approx(exact, rel=2e-6, abs=1e-8)
    assert found.ok[[0, 2]].all()
    left = leave_one_out_distances(bank, torch.arange(40))
    assert (left.lower_bound[left.membership == INSIDE] == 0).all()
    assert (left.lower_bound[left.membership == OUTSIDE] > 0).all()
    extreme = hull_vertices(bank)
    assert (extreme.lower_bound[extreme.extreme == -1] == 0).all()
    assert (extreme.lower_bound[extreme.extreme == 1] > 0).all()
    for row in range(40):
        others = points[torch.arange(40) != row]
        exact = exact_distance(others, points[row])
        assert (extreme.extreme[row] == 1) == (exact > 1e-8)
        assert left.distance[row] == pytest.approx(exact, rel=2e-6, abs=1e-8)


def test_a_row_that_float64_decides_is_not_computed_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of ordinary scales take no exact arithmetic, which is slow."""
    from fsboundary.geometry.hulls import certify

    monkeypatch.setattr(certify, "project_exactly", lambda *_: pytest.fail("exact arithmetic"))
    g = torch.Generator().manual_seed(0)
    points = torch.randn(300, 8, generator=g)
    queries = torch.cat([points[:20], 0.1 * points[20:40], 3 * points[40:60]])
    result = hull_projection(FeatureBank(points), queries)
    assert result.status.eq(Status.CONVERGED).all()
