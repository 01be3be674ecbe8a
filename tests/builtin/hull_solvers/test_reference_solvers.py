"""Properties of single reference solvers; test_oracles.py tests their common properties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsboundary import ArgumentError, PluginError, Status
from fsboundary.banks import FeatureBank
from fsboundary.builtin.cvxpy_reference import CvxpyHull
from fsboundary.builtin.hull_solvers.away_steps import AwaySteps
from fsboundary.builtin.hull_solvers.nnls import Nnls
from fsboundary.hulls import hull_projection
from fsboundary.plugins.interfaces import HullSolver
from support.hulls import oracles
from support.hulls.oracles import cloud

SOLVERS: list[HullSolver] = [AwaySteps(), CvxpyHull(), Nnls()]


class Watched:
    """A point set with only the methods of the protocol, which counts its passes."""

    def __init__(self, points: Tensor) -> None:
        self._bank, self.num_features = FeatureBank(points), points.shape[1]
        self.passes, self.taken = 0, 0

    def __len__(self) -> int:
        return len(self._bank)

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.passes += 1
        return self._bank.price(directions, k, exclude)

    def take(self, indices: Tensor) -> Tensor:
        self.taken = max(self.taken, len(indices))
        return self._bank.take(indices)


@pytest.mark.parametrize("solver", SOLVERS)
def test_excluded_generators_do_not_count(solver: HullSolver) -> None:
    points, queries = cloud(20, 3, 0), 2 * cloud(3, 3, 1)
    exclude = torch.tensor([[-1, -1], [4, 7], [19, -1]])
    best = solver.project(solver.prepare(Watched(points)), queries, tolerance=1e-6, max_steps=200)
    # also leave out the generator of largest weight
    exclude[0, 1] = best.support[0, best.weights[0].argmax()]
    found = solver.project(
        solver.prepare(Watched(points)), queries, exclude=exclude, tolerance=1e-6, max_steps=200
    )
    for row in range(3):
        assert not torch.isin(found.support[row], exclude[row][exclude[row] >= 0]).any()
        kept = torch.ones(20, dtype=torch.bool)
        kept[exclude[row][exclude[row] >= 0]] = False
        want = oracles.clarabel_distances(points[kept], queries[row : row + 1])
        nearest = found.weights[row] @ points[found.support[row].clamp_min(0)]
        got = (queries[row] - nearest).norm()[None]
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exclude", [None, torch.zeros(0, 1, dtype=torch.int64)])
def test_no_queries(solver: HullSolver, exclude: Tensor | None) -> None:
    state = solver.prepare(Watched(cloud(5, 3, 0)))
    none = torch.zeros(0, 3, dtype=torch.float64)
    found = solver.project(state, none, exclude=exclude, tolerance=1e-6, max_steps=200)
    assert found.points.shape == (0, 3)
    assert found.support.shape == found.weights.shape
    assert len(found.support) == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_row_without_any_generator_gets_no_weight(solver: HullSolver) -> None:
    state = solver.prepare(Watched(cloud(2, 3, 0)))
    exclude = torch.tensor([[0, 1], [-1, -1]])
    found = solver.project(state, cloud(2, 3, 1), exclude=exclude, tolerance=1e-6, max_steps=9)
    assert (found.support[0] == -1).all()
    assert (found.weights[0] == 0).all()
    assert float(found.weights[1].sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("solver", [CvxpyHull(max_elements=59), Nnls(max_elements=59)])
def test_too_many_points_are_rejected_unread(solver: HullSolver) -> None:
    points = Watched(cloud(20, 3, 0))
    with pytest.raises(ValueError, match=r"20 points of width 3, 60 numbers; wanted at most 59"):
        solver.prepare(points)
    assert points.taken == 0
    message = r'ArgumentError: bank: got 20 points.*Fix: use solver="active_set" or "away_steps"'
    with pytest.raises(PluginError, match=message):
        hull_projection(FeatureBank(cloud(20, 3, 0)), cloud(1, 3, 1), solver=solver)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_nnls_does_not_square_coordinates(scale: float) -> None:
    points, queries, solver = cloud(20, 3, 2), 2 * cloud(4, 3, 3), Nnls()
    for factor in (1.0, scale):
        found = solver.project(
            solver.prepare(Watched(factor * points)), factor * queries, tolerance=1e-6, max_steps=1
        )
        nearest = torch.einsum("bs,bsd->bd", found.weights, points[found.support.clamp_min(0)])
        want = oracles.clarabel_distances(points, queries)
        torch.testing.assert_close((queries - nearest).norm(dim=1), want, rtol=1e-8, atol=1e-9)


def test_another_solver_of_cvxpy() -> None:
    points, queries = cloud(20, 3, 4), 3 * cloud(4, 3, 5)
    found = hull_projection(
        FeatureBank(points), queries, solver=CvxpyHull(solver="SCS"), tolerance=1e-2
    )
    # SCS is a first-order method: two digits by its own default
    assert found.ok.all()
    want = oracles.clarabel_distances(points, queries)
    torch.testing.assert_close(found.distance, want, rtol=1e-2, atol=1e-2)


def test_cvxpy_returns_no_solution_if_its_solver_cannot() -> None:
    """SciPy's solvers are for linear programs."""
    found = hull_projection(
        FeatureBank(cloud(20, 3, 4)), cloud(2, 3, 5), solver=CvxpyHull(solver="SCIPY")
    )
    assert (found.status == Status.INACCURATE).all()
    assert (found.support == -1).all()
    assert (found.lower_bound == 0).all()


def test_a_solver_that_cvxpy_does_not_have_is_rejected() -> None:
    with pytest.raises(ArgumentError, match=r"solver: got 'CLARABL'; wanted one of .*CLARABEL"):
        CvxpyHull(solver="CLARABL")


def test_cvxpy_returns_few_points_inside() -> None:
    """An interior point method gives every point some weight, which would all be kept."""
    found = hull_projection(FeatureBank(cloud(300, 4, 6)), 0.1 * cloud(3, 4, 7), solver="cvxpy")
    assert (found.membership == 1).all()
    assert found.support.shape[1] <= 5


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_away_steps_respects_the_limit_of_passes(limit: int) -> None:
    points = Watched(cloud(300, 8, 8))
    solver = AwaySteps()
    found = solver.project(
        solver.prepare(points), 1.5 * cloud(5, 8, 9), tolerance=1e-12, max_steps=limit
    )
    assert points.passes == limit
    assert int(found.steps.max()) == limit
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(5).double(), rtol=0, atol=1e-12)


def test_away_steps_stops_sooner_for_looser_tolerances() -> None:
    bank, queries = FeatureBank(cloud(500, 8, 10)), 3 * cloud(6, 8, 11)
    exact = hull_projection(bank, queries)
    steps = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        found = hull_projection(bank, queries, solver="away_steps", tolerance=tolerance)
        assert found.ok.all()
        assert (found.distance - exact.lower_bound <= 1.1 * tolerance * found.distance).all()
        steps.append(int(found.steps.max()))
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_away_steps_works_with_a_bank_on_disk(tmp_path: Path) -> None:
    points, queries = cloud(100, 5, 12), 2 * cloud(4, 5, 13)
    bank = FeatureBank(points)
    bank.save(tmp_path / "bank")
    found, want = (
        hull_projection(b, queries, solver="away_steps", leave_out=torch.tensor([0, -1, 2, 3]))
        for b in (FeatureBank.open(tmp_path / "bank"), bank)
    )
    assert found.ok.all()
    torch.testing.assert_close(found.distance, want.distance, rtol=1e-9, atol=1e-12)
