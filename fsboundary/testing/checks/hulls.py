"""What every hull solver must hold to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.core.status import Status
from fsboundary.geometry.hulls.certify import INSIDE
from fsboundary.hulls.projection import HULL_RTOL, hull_projection
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.testing.invariants import check_repr, left_alone, made_by
from fsboundary.testing.problems import HullProblem, cloud, known_hulls
from fsboundary.testing.suite import NONE, Suite, require

STEPS = 2000
"""Enough for a method that converges slowly, on problems as small as these."""

_SLACK = 1e-7
"""Of two certified answers to one question, in feature units, besides the tolerance: the problems
are of size 1."""


@final
class HullSubject:
    """A hull solver, asked directly or through the core."""

    def __init__(self, factory: Callable[[], HullSolver]) -> None:
        self._factory = factory

    def new(self) -> HullSolver:
        """Return a new solver."""
        solver: HullSolver = made_by(self._factory, HullSolver)
        return solver

    def ask(
        self,
        points: Tensor | PointSet,
        queries: Tensor,
        exclude: Tensor | None = None,
        *,
        solver: HullSolver | None = None,
        max_steps: int = STEPS,
    ) -> HullProjection:
        """Return what a solver says itself."""
        solver = solver or self.new()
        state = solver.prepare(FeatureBank(points) if isinstance(points, Tensor) else points)
        return solver.project(
            state, queries, exclude=exclude, tolerance=HULL_RTOL, max_steps=max_steps
        )

    def graded(
        self, points: Tensor, queries: Tensor, leave_out: Tensor | None = None, steps: int = STEPS
    ) -> HullProjection:
        """Return what the core makes of it."""
        return hull_projection(
            FeatureBank(points), queries, leave_out=leave_out, solver=self.new(), max_steps=steps
        )


def _ordinary() -> tuple[Tensor, Tensor]:
    """Return points (30,4) and queries (5,4), some inside their hull."""
    return cloud(30, 4, 10), cloud(5, 4, 11) * torch.tensor([[0.1], [0.1], [1.0], [2.0], [4.0]])


def _same(one: Tensor, other: Tensor, what: str) -> None:
    allowed = _SLACK + 2 * HULL_RTOL * other.abs()
    wrong = ~((one - other).abs() <= allowed)
    require(not bool(wrong.any()), f"{what}: {one[wrong].tolist()} against {other[wrong].tolist()}")


def _right(found: HullProjection, problem: HullProblem) -> None:
    require(bool(found.ok.all()), f"{problem.name}: statuses {_names(found.status)}")
    _same(found.distance, problem.distance, f"distances to {problem.name}")


def _names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.tolist())


def factory_makes_a_hull_solver(subject: HullSubject) -> None:
    """The factory works without options and makes a HullSolver."""
    subject.new()


def repr_tells_options(subject: HullSubject) -> None:
    """The repr makes the solver again and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: HullSubject) -> None:
    """Every field has the documented shape, dtype and device."""
    points, queries = _ordinary()
    found = subject.ask(points, queries)
    require(isinstance(found, HullProjection), f"project returned a {type(found).__name__}")
    slots = found.support.shape[1] if found.support.ndim == 2 else 0
    require(slots >= 1, f"support has shape {tuple(found.support.shape)}; wanted (5, S), S >= 1")
    shapes = {"points": (5, 4), "normal": (5, 4), "support": (5, slots), "weights": (5, slots)}
    whole = {"support", "membership", "status", "steps"}
    for name, value in found.to_dict().items():
        wanted = shapes.get(name, (5,))
        require(tuple(value.shape) == wanted, f"{name} has shape {tuple(value.shape)} not {wanted}")
        dtype = torch.int64 if name in whole else torch.float64
        require(value.dtype == dtype, f"{name} is {value.dtype}; wanted {dtype}")
        require(value.device == queries.device, f"{name} is on {value.device}")
        require(not value.requires_grad, f"{name} carries a graph")


def no_rows(subject: HullSubject) -> None:
    """B = 0 gives empty fields."""
    points, queries = _ordinary()
    found = subject.ask(points, queries[:0])
    for name, value in found.to_dict().items():
        require(len(value) == 0, f"{name} has {len(value)} rows")
    require(found.points.shape == (0, 4), f"points have shape {tuple(found.points.shape)}")


def batch_equals_loop(subject: HullSubject) -> None:
    """Rows together get the answers that each gets alone."""
    points, queries = _ordinary()
    together = subject.graded(points, queries)
    alone = [subject.graded(points, query[None]).distance for query in queries]
    _same(together.distance, torch.cat(alone), "together against alone")


def order_of_rows(subject: HullSubject) -> None:
    """Answers go with their rows, whatever the order."""
    points, queries = _ordinary()
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = subject.graded(points, queries[order])
    _same(turned.distance, subject.graded(points, queries).distance[order], "rows reordered")


def order_of_points(subject: HullSubject) -> None:
    """The hull does not depend on the order of its points; the support follows it."""
    points, queries = _ordinary()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    turned = subject.graded(points[order], queries)
    _same(turned.distance, subject.graded(points, queries).distance, "points reordered")


def inputs_and_process_are_left_alone(subject: HullSubject) -> None:
    """Queries, excluded rows, default dtype, random generators and threads stay as they were."""
    points, queries = _ordinary()
    exclude = torch.tensor([[0, 3], [-1, -1], [7, -1], [2, 1], [-1, 5]])
    bank = FeatureBank(points)
    with left_alone(queries=queries, exclude=exclude, points=points):
        subject.ask(bank, queries, exclude)
        subject.ask(bank, queries)


def same_answer_every_time(subject: HullSubject) -> None:
    """Two solvers with the same options give the same answer, bit for bit."""
    points, queries = _ordinary()
    first, second = (subject.ask(points, queries) for _ in range(2))
    for name, value in first.to_dict().items():
        same = torch.equal(value.nan_to_num(), getattr(second, name).nan_to_num())
        require(same, f"{name} differs from call to call")


def calls_do_not_remember(subject: HullSubject) -> None:
    """A solver that has answered for other points and queries answers as a new one does."""
    points, queries = _ordinary()
    solver = subject.new()
    state, other = solver.prepare(FeatureBank(points)), solver.prepare(FeatureBank(points.flip(1)))
    asked = [(state, queries), (other, queries), (state, queries + 1), (state, queries)]
    sets = [points, points.flip(1), points, points]
    for (prepared, rows), own in zip(asked, sets, strict=True):
        found = solver.project(prepared, rows, tolerance=HULL_RTOL, max_steps=STEPS)
        fresh = subject.ask(own, rows)
        _same(_distance(own, rows, found), _distance(own, rows, fresh), "after other calls")


def _distance(points: Tensor, queries: Tensor, found: HullProjection) -> Tensor:
    chosen = points[found.support.clamp_min(0)] * found.weights[..., None]
    distance: Tensor = torch.linalg.vector_norm(queries - chosen.sum(dim=1), dim=1)
    return distance


def a_row_that_is_not_finite_fails_alone(subject: HullSubject) -> None:
    """A NaN row gets NOT_FINITE; the others' answers stand."""
    points, queries = _ordinary()
    spoilt = queries.clone()
    spoilt[2, 1] = torch.nan
    found = subject.graded(points, spoilt)
    require(int(found.status[2]) == Status.NOT_FINITE, f"status {_names(found.status[2:3])}")
    kept = [0, 1, 3, 4]
    want = subject.graded(points, queries[kept])
    _same(found.distance[kept], want.distance, "beside a NaN row")


def one_step_keeps_valid_bounds(subject: HullSubject) -> None:
    """Stopped after one step, it answers, and no bound exceeds the true distance."""
    for problem in known_hulls():
        found = subject.graded(problem.points, problem.queries, steps=1)
        high = found.lower_bound > problem.distance * (1 + 1e-9) + 1e-12
        require(not bool(high.any()), f"{problem.name}: a bound is above the distance")
        said = subject.ask(problem.points, problem.queries, max_steps=1)
        high = said.lower_bound > problem.distance * (1 + HULL_RTOL) + _SLACK
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")


def known_answers(subject: HullSubject) -> None:
    """Distances to a cube, a simplex, a segment and a point are certified and right."""
    for problem in known_hulls():
        _right(subject.graded(problem.points, problem.queries), problem)


def moved_and_scaled(subject: HullSubject) -> None:
    """The answers move and scale with the problem."""
    problem = known_hulls()[0]
    for factor, shift in ((1e-3, 0.0), (1e3, 0.0), (1.0, 100.0)):
        found = subject.graded(factor * problem.points + shift, factor * problem.queries + shift)
        require(bool(found.ok.all()), f"times {factor} plus {shift}: {_names(found.status)}")
        _same(found.distance / factor, problem.distance, f"times {factor} plus {shift}")


def inside_is_inside(subject: HullSubject) -> None:
    """Generators and their averages are inside, at distance 0."""
    points = cloud(12, 3, 12)
    queries = torch.cat([points[:2], points.mean(dim=0, keepdim=True)])
    found = subject.graded(points, queries)
    require(bool((found.membership == INSIDE).all()), f"membership {found.membership.tolist()}")


def excluded_points_do_not_count(subject: HullSubject) -> None:
    """Points excluded for a row carry no weight in it, and its answer is that without them."""
    points = cloud(12, 3, 13)
    rows = torch.tensor([0, 5, 11])
    found = subject.graded(points, points[rows], rows)
    for row, out in enumerate(rows.tolist()):
        require(not bool((found.support[row] == out).any()), f"row {row} leans on point {out}")
        kept = torch.arange(12) != out
        want = subject.graded(points[kept], points[out][None])
        _same(found.distance[row : row + 1], want.distance, f"without point {out}")


def any_point_set_will_do(subject: HullSubject) -> None:
    """A point set that offers the protocol's methods and no others is enough."""
    points, queries = _ordinary()
    found = subject.ask(_BarePoints(points), queries)
    _same(
        _distance(points, queries, found),
        subject.graded(points, queries).distance,
        "with a bare point set",
    )


def claims_are_true(subject: HullSubject) -> None:
    """What it says of its answer, the core finds too; it may leave distance and bound open."""
    for problem in known_hulls():
        said = subject.ask(problem.points, problem.queries)
        graded = subject.graded(problem.points, problem.queries)
        name = problem.name
        total, lightest = said.weights.sum(dim=1), said.weights.min()
        require(float(lightest) >= 0, f"{name}: a weight is {float(lightest):.3g}")
        require(
            bool((((total - 1).abs() < 1e-9) | (total == 0)).all()),
            f"{name}: weights sum to {total.tolist()}",
        )
        own = _distance(problem.points, problem.queries, said)
        told = torch.isfinite(said.distance)
        _same(said.distance[told], own[told], f"{name}: claimed against true distance")
        high = said.lower_bound > problem.distance * (1 + HULL_RTOL) + _SLACK
        require(not bool(high.any()), f"{name}: it claims a bound above the distance")
        sure = said.status == Status.CONVERGED
        require(bool(graded.ok[sure].all()), f"{name}: it claims CONVERGED, the core does not")


def certificates_can_be_checked(subject: HullSubject) -> None:
    """Support and weights alone give the distance and the bound that the core certified."""
    points, queries = _ordinary()
    found = subject.graded(points, queries)
    require(bool(found.ok.all()), f"statuses {_names(found.status)}")
    chosen = (points[found.support.clamp_min(0)] * found.weights[..., None]).sum(dim=1)
    away = queries - chosen
    distance = torch.linalg.vector_norm(away, dim=1)
    _same(found.distance, distance, "distance from support and weights")
    farther = (away @ points.T).amax(dim=1) - (away * chosen).sum(dim=1)
    bound = torch.where(distance > _SLACK, distance - farther / distance, 0.0)
    _same(found.lower_bound, bound.clamp_min(0.0), "bound from support and weights")


class _BarePoints:
    """A point set with what the protocol names and nothing else."""

    def __init__(self, points: Tensor) -> None:
        self._bank = FeatureBank(points)

    @property
    def num_features(self) -> int:
        return self._bank.num_features

    def __len__(self) -> int:
        return len(self._bank)

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._bank.price(directions, k, exclude)

    def take(self, indices: Tensor) -> Tensor:
        return self._bank.take(indices)


HULL_CHECKS = (
    factory_makes_a_hull_solver,
    repr_tells_options,
    shapes_dtypes_and_device,
    no_rows,
    batch_equals_loop,
    order_of_rows,
    order_of_points,
    inputs_and_process_are_left_alone,
    same_answer_every_time,
    calls_do_not_remember,
    a_row_that_is_not_finite_fails_alone,
    one_step_keeps_valid_bounds,
    known_answers,
    moved_and_scaled,
    inside_is_inside,
    excluded_points_do_not_count,
    any_point_set_will_do,
    claims_are_true,
    certificates_can_be_checked,
)


def hull_suite(
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NONE
) -> Suite[HullSubject]:
    """Return the checks of a hull solver, to be run without pytest."""
    return Suite(HULL_CHECKS, lambda: HullSubject(factory), expected_failures)


def hull_solver_tests(
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a hull solver to its contract.

    Bind it to a name that pytest collects: ``test_my_solver = hull_solver_tests(MySolver)``.

    Parameters
    ----------
    factory : callable
        Makes the solver, without arguments: its class, or a function that passes options.
    expected_failures : mapping of str to str
        Check name to the reason why the solver fails it. Strict: a check listed here must fail.

    Returns
    -------
    callable
        Parametrised by the checks' names, which stay the same from version to version.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    return hull_suite(factory, expected_failures).pytest_function()
