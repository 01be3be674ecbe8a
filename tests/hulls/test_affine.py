"""Dimension of the affine hull and distance from it, against exact ranks and SVDs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import (
    AffineRank,
    ArgumentError,
    FeatureBank,
    Status,
    affine_rank,
    affine_residuals,
    hull_projection,
)
from fsboundary.geometry import batching
from support.hulls.oracles import clarabel_distances, cloud, rotation, squared_distance


def rank(points: Tensor, **options: float) -> AffineRank:
    return affine_rank(FeatureBank(points), **options)


def exact_rank(points: Tensor) -> int:
    """Return the rank of the differences from the first point, without rounding."""
    rows = [
        [Fraction(a) - Fraction(b) for a, b in zip(p, points[0].tolist(), strict=True)]
        for p in points.tolist()
    ]
    found = 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(found, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for r in range(found + 1, len(rows)):
            factor = rows[r][column] / rows[found][column]
            rows[r] = [a - factor * b for a, b in zip(rows[r], rows[found], strict=True)]
        found += 1
    return found


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_agrees_with_exact_elimination(n: int, d: int, r: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = (
        torch.randint(-3, 4, (n, r), generator=g) @ torch.randint(-3, 4, (r, d), generator=g)
    ).double()
    found = rank(points)
    assert int(found.rank) == exact_rank(points)
    assert found.ok
    assert found.singular_values.shape == (d,)


@pytest.mark.parametrize(("n", "d", "r"), [(200, 12, 12), (200, 12, 5), (8, 20, 7), (3000, 6, 2)])
def test_singular_values_and_their_bounds(n: int, d: int, r: int) -> None:
    points = cloud(n, r, n) @ cloud(r, d, d) + 3 * cloud(1, d, 1)
    found = rank(points)
    want = torch.linalg.svdvals(points - points.mean(dim=0))
    torch.testing.assert_close(found.singular_values[:r], want[:r], rtol=1e-9, atol=0)
    assert int(found.rank) == r
    assert found.ok
    assert float(found.kept) == pytest.approx(float(want[r - 1]), rel=1e-6)
    assert float(found.kept) <= float(want[r - 1]) * (1 + 1e-12)
    assert float(found.rest) <= 1e-9 * float(want[0])
    assert float(found.thickness) <= 1e-9 * float(want[0])


def test_the_tolerance_decides_which_directions_count() -> None:
    points = cloud(300, 6, 2) * 10.0 ** -torch.arange(6)
    for rtol, want in ((2e-3, 3), (3e-2, 2), (1e-9, 6)):
        found = rank(points, tolerance=rtol)
        assert int(found.rank) == want
        assert found.ok
        size = float(found.singular_values.norm())
        assert float(found.kept) > rtol * size
        assert float(found.rest) <= rtol * size
    value = float(found.singular_values[3] / found.singular_values.norm())
    close = rank(points, tolerance=value * (1 - 1e-15))
    assert close.status == Status.UNDECIDED


@pytest.mark.parametrize("kind", ["one point", "copies", "two points", "line"])
def test_few_dimensions(kind: str) -> None:
    points = {
        "one point": cloud(1, 4, 3),
        "copies": cloud(1, 4, 3).repeat(9, 1),
        "two points": cloud(2, 4, 3),
        "line": torch.linspace(0, 1, 30).double()[:, None] * cloud(1, 4, 3),
    }[kind]
    found = rank(points)
    assert int(found.rank) == (0 if kind in ("one point", "copies") else 1)
    assert found.ok
    assert float(found.thickness) <= 1e-12


@pytest.mark.parametrize(
    ("scale", "shift"), [(1e-150, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e150, 0.0), (1.0, 2.0**20)]
)
def test_invariance(scale: float, shift: float) -> None:
    points = cloud(60, 3, 4) @ cloud(3, 7, 5)
    want = rank(points)
    found = rank((points.flip(0) @ rotation(7, 6)) * scale + shift)
    assert int(found.rank) == 3
    assert found.ok
    torch.testing.assert_close(
        found.singular_values[:3] / scale, want.singular_values[:3], rtol=1e-9, atol=0
    )
    assert float(found.kept / scale) == pytest.approx(float(want.kept), rel=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = cloud(50, 3, 7) @ cloud(3, 6, 8), cloud(9, 6, 9)
    want = rank(points), affine_residuals(FeatureBank(points), queries)
    monkeypatch.setattr(batching, "chunk_rows", lambda *_: 4)
    found = rank(points), affine_residuals(FeatureBank(points), queries)
    assert int(found[0].rank) == int(want[0].rank) == 3
    torch.testing.assert_close(found[0].kept, want[0].kept, rtol=1e-9, atol=0)
    torch.testing.assert_close(found[1].residual, want[1].residual, rtol=1e-9, atol=1e-12)


def test_numbers_that_overflow_prove_nothing() -> None:
    points = torch.tensor([[1e308, 0.0], [-1e308, 0.0], [0.0, 1e308]], dtype=torch.float64)
    found = rank(points)
    assert found.status == Status.UNDECIDED
    residuals = affine_residuals(FeatureBank(points), torch.zeros(2, 2))
    assert (residuals.lower_bound == 0).all()
    far = affine_residuals(
        FeatureBank(cloud(2, 3, 0)), torch.full((1, 3), 1e308, dtype=torch.float64)
    )
    assert far.lower_bound.isfinite().all()


@pytest.mark.parametrize("thick", [0.0, 1e-3])
def test_residuals(thick: float) -> None:
    points = cloud(40, 2, 10) @ cloud(2, 5, 11) + thick * cloud(40, 5, 12) + 7
    queries = torch.cat([points[:3], points[3:8] + cloud(5, 5, 13), 30 * cloud(4, 5, 14)])
    queries[4, 2] = torch.nan
    bank = FeatureBank(points)
    found = affine_residuals(bank, queries, tolerance=0.05)
    assert found.status.tolist() == [Status.NOT_FINITE if r == 4 else 0 for r in range(12)]
    assert torch.isnan(found.residual[4])
    assert found.lower_bound[4] == 0
    mean = points.mean(dim=0)
    basis = torch.linalg.svd(points - mean, full_matrices=False)[2][:2]
    fine = torch.arange(12) != 4
    away = queries[fine] - mean
    want = (away - away @ basis.T @ basis).norm(dim=1)
    torch.testing.assert_close(found.residual[fine], want, rtol=1e-9, atol=1e-9)
    distance = clarabel_distances(points, queries[fine])
    assert (found.lower_bound[fine] <= distance * (1 + 1e-9)).all()
    # never far below the residual itself
    slack = float(affine_rank(bank, tolerance=0.05).thickness)
    assert (found.lower_bound[fine] >= want - slack - 1e-9).all()
    assert found.lower_bound[8:].min() > 0
    graded = hull_projection(bank, queries[fine])
    assert (found.lower_bound[fine] <= graded.distance * (1 + 1e-9) + 1e-12).all()


def test_a_bank_on_disk_answers_as_one_in_memory(tmp_path: Path) -> None:
    bank, queries = FeatureBank(cloud(40, 2, 17) @ cloud(2, 4, 18)), cloud(3, 4, 19)
    bank.save(tmp_path / "bank")
    disk = FeatureBank.open(tmp_path / "bank")
    assert int(affine_rank(disk).rank) == int(affine_rank(bank).rank) == 2
    found, want = affine_residuals(disk, queries), affine_residuals(bank, queries)
    torch.testing.assert_close(found.lower_bound, want.lower_bound, rtol=1e-9, atol=1e-12)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from([(0, 0.0), (0, 1e9), (-500, 1e3), (490, 0.0), (-1060, 1e3)]),
)
def test_no_bound_is_false_without_any_rounding(
    n: int, d: int, seed: int, case: tuple[int, float]
) -> None:
    (power, shift), g = case, torch.Generator().manual_seed(seed)
    turn = torch.randn(2, d, dtype=torch.float64, generator=g)
    points = (torch.randn(n, 2, dtype=torch.float64, generator=g) @ turn + shift) * 2.0**power
    queries = points[:1] + torch.randn(4, d, dtype=torch.float64, generator=g) * 2.0**power
    found = affine_residuals(FeatureBank(points), queries)
    for row, query in enumerate(queries):
        exact = squared_distance(points, query)
        assert Fraction(float(found.lower_bound[row])) ** 2 <= exact


def test_batch_is_loop_and_no_rows() -> None:
    bank, queries = FeatureBank(cloud(9, 4, 15)[:4]), 2 * cloud(6, 4, 16)
    found = affine_residuals(bank, queries)
    for row in range(6):
        alone = affine_residuals(bank, queries[row][None])
        torch.testing.assert_close(alone.residual[0], found.residual[row], rtol=1e-12, atol=1e-12)
    assert affine_residuals(bank, torch.zeros(0, 4)).residual.shape == (0,)


def test_refused() -> None:
    bank = FeatureBank(cloud(4, 3, 0))
    with pytest.raises(ArgumentError, match="bank: got a Tensor; wanted a FeatureBank"):
        affine_rank(cloud(4, 3, 0))  # type: ignore[arg-type]  # the wrong type is what is tested
    with pytest.raises(ArgumentError, match=r"tolerance: got 1\.0"):
        affine_rank(bank, tolerance=1.0)
    with pytest.raises(ArgumentError, match=r"features: got shape \(2, 2\)"):
        affine_residuals(bank, cloud(2, 2, 1))
