from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from fsboundary import ArgumentError, Status
from fsboundary.banks import FeatureBank
from fsboundary.hulls import class_hull_distances, hull_projection


def nnls_distance(points: torch.Tensor, query: torch.Tensor) -> float:
    """Return the distance by nonnegative least squares with a heavy row for Σ a = 1."""
    shifted = (points - query).double().numpy()
    size = float(np.abs(shifted).max()) or 1.0
    weights, _ = nnls(
        np.vstack([shifted.T / size, np.ones(len(points))]),
        np.eye(1, shifted.shape[1] + 1, shifted.shape[1])[0],
    )
    # min |Y a|² + (Σ a - 1)² has the same direction as the point of least norm (Wolfe 1976)
    weights = weights / weights.sum()
    return float(np.linalg.norm(weights @ shifted))


def cloud(n: int, d: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


@pytest.mark.parametrize(
    ("n", "d"), [(1, 3), (2, 3), (5, 2), (40, 3), (200, 8), (30, 40), (500, 20)]
)
def test_agrees_with_nnls(n: int, d: int) -> None:
    points, queries = cloud(n, d, n + d), 1.5 * cloud(20, d, 1)
    found = hull_projection(FeatureBank(points), queries)
    assert (found.status == Status.CONVERGED).all()
    for row in range(20):
        want = nnls_distance(points, queries[row])
        assert float(found.distance[row]) == pytest.approx(want, rel=1e-6, abs=1e-7)
    used = (found.support >= 0).sum(dim=1)
    assert (used <= torch.where(found.membership < 0, d, d + 1)).all()
    torch.testing.assert_close(
        found.weights.sum(dim=1), torch.ones(20).double(), rtol=0, atol=1e-12
    )
    assert (found.weights >= 0).all()


def test_the_supporting_hyperplane_holds_for_every_generator() -> None:
    points, queries = cloud(300, 6, 0), 4 * cloud(50, 6, 1)
    found = hull_projection(FeatureBank(points), queries)
    out = found.membership == -1
    assert out.all()
    assert (found.normal @ points.T <= found.offset[:, None]).all()
    beyond = (found.normal * queries).sum(dim=1) - found.offset
    assert (beyond <= found.distance).all()
    torch.testing.assert_close(beyond, found.lower_bound, rtol=1e-6, atol=1e-9)


def test_membership_in_three_values() -> None:
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    queries = torch.tensor([[0.25, 0.75], [1.0, 1.0], [2.0, 0.5], [0.5, 0.0]])
    found = hull_projection(FeatureBank(square), queries)
    assert found.membership.tolist() == [1, 1, -1, 1]
    assert found.distance.tolist() == pytest.approx([0.0, 0.0, 1.0, 0.0], abs=1e-9)
    assert found.points[2].tolist() == pytest.approx([1.0, 0.5])
    assert torch.isnan(found.normal[0]).all()


@pytest.mark.parametrize("kind", ["duplicates", "collinear", "flat", "dead", "one point repeated"])
def test_degenerate_hulls(kind: str) -> None:
    points = cloud(30, 5, 3)
    if kind == "duplicates":
        points = points.repeat(3, 1)
    if kind == "collinear":
        points = torch.linspace(-1, 1, 30).double()[:, None] * points[:1]
    if kind == "flat":
        points[:, 2:] = points[:, :2] @ cloud(2, 3, 4)
    if kind == "dead":
        points[:, 3:] = 0
    if kind == "one point repeated":
        points = points[:1].repeat(30, 1)
    queries = torch.cat([cloud(10, 5, 5), points[:3], points.mean(dim=0, keepdim=True)])
    found = hull_projection(FeatureBank(points), queries)
    assert found.ok.all()
    for row in range(len(queries)):
        want = nnls_distance(points, queries[row])
        assert float(found.distance[row]) == pytest.approx(want, rel=1e-6, abs=1e-7)
    assert (found.membership[10:] == 1).all()


def test_batch_equals_loop_and_permutation() -> None:
    points, queries = cloud(200, 7, 6), 2 * cloud(30, 7, 7)
    together = hull_projection(FeatureBank(points), queries)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    other = hull_projection(FeatureBank(points[order]), queries)
    torch.testing.assert_close(other.distance, together.distance, rtol=1e-9, atol=1e-12)
    for row in range(30):
        alone = hull_projection(FeatureBank(points), queries[row : row + 1])
        torch.testing.assert_close(
            alone.distance, together.distance[row : row + 1], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_scale_and_translation(scale: float) -> None:
    points, queries = cloud(100, 6, 8), 2 * cloud(20, 6, 9)
    want = hull_projection(FeatureBank(points), queries)
    shift = 3 * cloud(1, 6, 10)
    got = hull_projection(FeatureBank((points + shift) * scale), (queries + shift) * scale)
    assert torch.equal(got.membership, want.membership)
    torch.testing.assert_close(got.distance, want.distance * scale, rtol=1e-6, atol=1e-9 * scale)


def test_labels_and_class_distances() -> None:
    points, labels = cloud(90, 4, 11), torch.arange(90) % 3 * 2
    bank, queries = FeatureBank(points, labels), 2 * cloud(12, 4, 12)
    wanted = torch.arange(12) % 3 * 2
    found = hull_projection(bank, queries, labels=wanted)
    table = class_hull_distances(bank, queries)
    assert table.shape == (12, 3)
    for row in range(12):
        alone = hull_projection(FeatureBank(points[labels == wanted[row]]), queries[row : row + 1])
        assert float(found.distance[row]) == pytest.approx(float(alone.distance), rel=1e-9)
        assert float(table[row, wanted[row] // 2]) == pytest.approx(float(alone.distance), rel=1e-9)
        used = found.support[row][found.support[row] >= 0]
        assert (labels[used] == wanted[row]).all()


def test_leave_out_counts_copies_as_one_point() -> None:
    points = cloud(40, 3, 13)
    points = torch.cat([points, points[:5]])
    rows = torch.arange(45)
    found = hull_projection(FeatureBank(points), points, leave_out=rows)
    for row in range(45):
        others = points[(points != points[row]).any(dim=1)]
        want = nnls_distance(others, points[row])
        assert float(found.distance[row]) == pytest.approx(want, rel=1e-6, abs=1e-7)
    assert (found.distance[:5] - found.distance[40:]).abs().max() <= 1e-12


def test_one_bad_row_fails_alone() -> None:
    points, queries = cloud(50, 3, 14), cloud(4, 3, 15)
    queries[2, 1] = torch.nan
    found = hull_projection(FeatureBank(points), queries)
    assert found.status.tolist() == [0, 0, Status.NOT_FINITE, 0]
    assert torch.isnan(found.distance[2])
    assert found.lower_bound[2] == 0


def test_few_steps_keep_valid_bounds() -> None:
    points, queries = cloud(2000, 10, 16), 2 * cloud(40, 10, 17)
    exact = hull_projection(FeatureBank(points), queries)
    hurried = hull_projection(FeatureBank(points), queries, max_steps=1)
    assert (hurried.lower_bound <= exact.distance).all()
    assert (hurried.status[~hurried.ok] == Status.MAX_STEPS).all()


def test_bad_arguments() -> None:
    bank, queries = FeatureBank(cloud(5, 3, 0)), cloud(2, 3, 1)
    labelled = FeatureBank(cloud(2, 3, 0), torch.tensor([0, 1]))
    with pytest.raises(ArgumentError, match=r"shape \(2, 2\)"):
        hull_projection(bank, queries[:, :2])
    with pytest.raises(ArgumentError, match="bank without labels"):
        hull_projection(bank, queries, labels=torch.zeros(2).long())
    with pytest.raises(ArgumentError, match="which no row has"):
        hull_projection(labelled, queries, labels=torch.tensor([0, 7]))
    own = torch.tensor([0, 1])
    with pytest.raises(ArgumentError, match="at least one generator left"):
        hull_projection(labelled, queries, labels=own, leave_out=own)
    with pytest.raises(ArgumentError, match="-1 to 4"):
        hull_projection(bank, queries, leave_out=torch.tensor([0, 5]))
    with pytest.raises(ArgumentError, match="active_set"):
        hull_projection(bank, queries, solver="active_sett")
