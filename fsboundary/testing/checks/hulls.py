"""Conformance checks of hull solvers."""

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
from fsboundary.testing.invariants import check_repr, make_instance, require_unchanged
from fsboundary.testing.problems import HullProblem, cloud, known_hulls
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

STEPS = 2000
"""Enough for a slowly converging method on problems as small as these."""

_SLACK = 1e-7
"""Allowed difference of two certified results, in feature units, in addition to the tolerance: the
problems are of size 1."""


@final
class HullSubject:
    """A hull solver, called directly or through the core."""

    def __init__(self, factory: Callable[[], HullSolver]) -> None:
        self._factory = factory

    def new(self) -> HullSolver:
        """Return a new solver."""
        solver: HullSolver = make_instance(self._factory, HullSolver)
        return solver

    def propose(
        self,
        points: Tensor | PointSet,
        queries: Tensor,
        exclude: Tensor | None = None,
        *,
        solver: HullSolver | None = None,
        max_steps: int = STEPS,
    ) -> HullProjection:
        """Return the raw proposal of a solver."""
        solver = solver or self.new()
        state = solver.prepare(FeatureBank(points) if isinstance(points, Tensor) else points)
        return solver.project(
            state, queries, exclude=exclude, tolerance=HULL_RTOL, max_steps=max_steps
        )

    def grade(
        self, points: Tensor, queries: Tensor, leave_out: Tensor | None = None, steps: int = STEPS
    ) -> HullProjection:
        """Return the graded result."""
        return hull_projection(
            FeatureBank(points), queries, leave_out=leave_out, solver=self.new(), max_steps=steps
        )


def _ordinary() -> tuple[Tensor, Tensor]:
    """Return points (30,4) and queries (5,4), some inside their hull."""
    return cloud(30, 4, 10), cloud(5, 4, 11) * torch.tensor([[0.1], [0.1], [1.0], [2.0], [4.0]])


def _require_close(one: Tensor, other: Tensor, what: str) -> None:
    allowed = _SLACK + 2 * HULL_RTOL * other.abs()
    wrong = ~((one - other).abs() <= allowed)
    require(not bool(wrong.any()), f"{what}: {one[wrong].tolist()} against {other[wrong].tolist()}")


def _require_distances(result: HullProjection, problem: HullProblem) -> None:
    require(bool(result.ok.all()), f"{problem.name}: statuses {_status_names(result.status)}")
    _require_close(result.distance, problem.distance, f"distances to {problem.name}")


def _status_names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.tolist())


def factory_makes_a_hull_solver(subject: HullSubject) -> None:
    """The factory works without options and returns a HullSolver."""
    subject.new()


def repr_tells_options(subject: HullSubject) -> None:
    """The repr recreates the solver and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: HullSubject) -> None:
    """Every field has the documented shape, dtype and device."""
    points, queries = _ordinary()
    result = subject.propose(points, queries)
    require(isinstance(result, HullProjection), f"project returned a {type(result).__name__}")
    slots = result.support.shape[1] if result.support.ndim == 2 else 0
    require(slots >= 1, f"support has shape {tuple(result.support.shape)}; wanted (5, S), S >= 1")
    shapes = {"points": (5, 4), "normal": (5, 4), "support": (5, slots), "weights": (5, slots)}
    whole = {"support", "membership", "status", "steps"}
    for name, value in result.to_dict().items():
        wanted = shapes.get(name, (5,))
        require(tuple(value.shape) == wanted, f"{name} has shape {tuple(value.shape)} not {wanted}")
        dtype = torch.int64 if name in whole else torch.float64
        require(value.dtype == dtype, f"{name} is {value.dtype}; wanted {dtype}")
        require(value.device == queries.device, f"{name} is on {value.device}")
        require(not value.requires_grad, f"{name} carries a graph")


def no_rows(subject: HullSubject) -> None:
    """B = 0 gives empty fields."""
    points, queries = _ordinary()
    result = subject.propose(points, queries[:0])
    for name, value in result.to_dict().items():
        require(len(value) == 0, f"{name} has {len(value)} rows")
    require(result.points.shape == (0, 4), f"points have shape {tuple(result.points.shape)}")


def batch_equals_loop(subject: HullSubject) -> None:
    """A batch gets the results of its single rows."""
    points, queries = _ordinary()
    together = subject.grade(points, queries)
    single = [subject.grade(points, query[None]).distance for query in queries]
    _require_close(together.distance, torch.cat(single), "batch against single rows")


def order_of_rows(subject: HullSubject) -> None:
    """Results follow their rows in any order."""
    points, queries = _ordinary()
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = subject.grade(points, queries[order])
    _require_close(
        permuted.distance, subject.grade(points, queries).distance[order], "rows reordered"
    )


def order_of_points(subject: HullSubject) -> None:
    """The hull does not depend on the order of its points; the support follows the order."""
    points, queries = _ordinary()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    permuted = subject.grade(points[order], queries)
    _require_close(permuted.distance, subject.grade(points, queries).distance, "points reordered")


def inputs_and_process_are_left_alone(subject: HullSubject) -> None:
    """Queries, excluded rows, default dtype, random generators and threads stay unchanged."""
    points, queries = _ordinary()
    exclude = torch.tensor([[0, 3], [-1, -1], [7, -1], [2, 1], [-1, 5]])
    bank = FeatureBank(points)
    with require_unchanged(queries=queries, exclude=exclude, points=points):
        subject.propose(bank, queries, exclude)
        subject.propose(bank, queries)


def same_answer_every_time(subject: HullSubject) -> None:
    """Two solvers with the same options give the same result, bit for bit."""
    points, queries = _ordinary()
    first, second = (subject.propose(points, queries) for _ in range(2))
    for name, value in first.to_dict().items():
        same = torch.equal(value.nan_to_num(), getattr(second, name).nan_to_num())
        require(same, f"{name} differs from call to call")


def calls_do_not_remember(subject: HullSubject) -> None:
    """A solver used with other points and queries gives the same results as a new one."""
    points, queries = _ordinary()
    solver = subject.new()
    state, other = solver.prepare(FeatureBank(points)), solver.prepare(FeatureBank(points.flip(1)))
    calls = [(state, queries), (other, queries), (state, queries + 1), (state, queries)]
    sets = [points, points.flip(1), points, points]
    for (prepared, rows), generators in zip(calls, sets, strict=True):
        result = solver.project(prepared, rows, tolerance=HULL_RTOL, max_steps=STEPS)
        fresh = subject.propose(generators, rows)
        _require_close(
            _distance(generators, rows, result),
            _distance(generators, rows, fresh),
            "after other calls",
        )


def _distance(points: Tensor, queries: Tensor, result: HullProjection) -> Tensor:
    chosen = points[result.support.clamp_min(0)] * result.weights[..., None]
    distance: Tensor = torch.linalg.vector_norm(queries - chosen.sum(dim=1), dim=1)
    return distance


def a_row_that_is_not_finite_fails_alone(subject: HullSubject) -> None:
    """A NaN row gets NOT_FINITE; the results of the others are unchanged."""
    points, queries = _ordinary()
    spoiled = queries.clone()
    spoiled[2, 1] = torch.nan
    result = subject.grade(points, spoiled)
    require(
        int(result.status[2]) == Status.NOT_FINITE, f"status {_status_names(result.status[2:3])}"
    )
    others = [0, 1, 3, 4]
    want = subject.grade(points, queries[others])
    _require_close(result.distance[others], want.distance, "beside a NaN row")


def one_step_keeps_valid_bounds(subject: HullSubject) -> None:
    """After one step it returns a result, and no bound exceeds the true distance."""
    for problem in known_hulls():
        result = subject.grade(problem.points, problem.queries, steps=1)
        high = result.lower_bound > problem.distance * (1 + 1e-9) + 1e-12
        require(not bool(high.any()), f"{problem.name}: a bound is above the distance")
        claimed = subject.propose(problem.points, problem.queries, max_steps=1)
        high = claimed.lower_bound > problem.distance * (1 + HULL_RTOL) + _SLACK
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")


def known_answers(subject: HullSubject) -> None:
    """Distances to a cube, a simplex, a segment and a point are certified and correct."""
    for problem in known_hulls():
        _require_distances(subject.grade(problem.points, problem.queries), problem)


def moved_and_scaled(subject: HullSubject) -> None:
    """The results move and scale with the problem."""
    problem = known_hulls()[0]
    for factor, shift in ((1e-3, 0.0), (1e3, 0.0), (1.0, 100.0)):
        result = subject.grade(factor * problem.points + shift, factor * problem.queries + shift)
        require(
            bool(result.ok.all()), f"times {factor} plus {shift}: {_status_names(result.status)}"
        )
        _require_close(result.distance / factor, problem.distance, f"times {factor} plus {shift}")


def inside_is_inside(subject: HullSubject) -> None:
    """Generators and their averages are inside, at distance 0."""
    points = cloud(12, 3, 12)
    queries = torch.cat([points[:2], points.mean(dim=0, keepdim=True)])
    result = subject.grade(points, queries)
    require(bool((result.membership == INSIDE).all()), f"membership {result.membership.tolist()}")


def excluded_points_do_not_count(subject: HullSubject) -> None:
    """Points excluded for a row have no weight in it, and its result is that without them."""
    points = cloud(12, 3, 13)
    rows = torch.tensor([0, 5, 11])
    result = subject.grade(points, points[rows], rows)
    for row, out in enumerate(rows.tolist()):
        require(not bool((result.support[row] == out).any()), f"row {row} uses point {out}")
        others = torch.arange(12) != out
        want = subject.grade(points[others], points[out][None])
        _require_close(result.distance[row : row + 1], want.distance, f"without point {out}")


def any_point_set_will_do(subject: HullSubject) -> None:
    """A point set with only the methods of the protocol is enough."""
    points, queries = _ordinary()
    result = subject.propose(_BarePoints(points), queries)
    _require_close(
        _distance(points, queries, result),
        subject.grade(points, queries).distance,
        "with a bare point set",
    )


def claims_are_true(subject: HullSubject) -> None:
    """Its claims about its result agree with the core; distance and bound may be left open."""
    for problem in known_hulls():
        claimed = subject.propose(problem.points, problem.queries)
        graded = subject.grade(problem.points, problem.queries)
        name = problem.name
        total, lightest = claimed.weights.sum(dim=1), claimed.weights.min()
        require(float(lightest) >= 0, f"{name}: a weight is {float(lightest):.3g}")
        require(
            bool((((total - 1).abs() < 1e-9) | (total == 0)).all()),
            f"{name}: weights sum to {total.tolist()}",
        )
        computed = _distance(problem.points, problem.queries, claimed)
        stated = torch.isfinite(claimed.distance)
        _require_close(
            claimed.distance[stated], computed[stated], f"{name}: claimed against true distance"
        )
        high = claimed.lower_bound > problem.distance * (1 + HULL_RTOL) + _SLACK
        require(not bool(high.any()), f"{name}: it claims a bound above the distance")
        converged = claimed.status == Status.CONVERGED
        require(bool(graded.ok[converged].all()), f"{name}: it claims CONVERGED, the core does not")


def certificates_can_be_checked(subject: HullSubject) -> None:
    """Support and weights suffice to compute the certified distance and bound."""
    points, queries = _ordinary()
    result = subject.grade(points, queries)
    require(bool(result.ok.all()), f"statuses {_status_names(result.status)}")
    chosen = (points[result.support.clamp_min(0)] * result.weights[..., None]).sum(dim=1)
    away = queries - chosen
    distance = torch.linalg.vector_norm(away, dim=1)
    _require_close(result.distance, distance, "distance from support and weights")
    farther = (away @ points.T).amax(dim=1) - (away * chosen).sum(dim=1)
    bound = torch.where(distance > _SLACK, distance - farther / distance, 0.0)
    _require_close(result.lower_bound, bound.clamp_min(0.0), "bound from support and weights")


class _BarePoints:
    """A point set with only the methods of the protocol."""

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
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES
) -> Suite[HullSubject]:
    """Return the checks of a hull solver, for use without pytest."""
    return Suite(HULL_CHECKS, lambda: HullSubject(factory), expected_failures)


def hull_solver_tests(
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES
) -> Callable[[str], None]:
    """Return a pytest function that checks a hull solver against its contract.

    Bind it to a name that pytest collects: ``test_my_solver = hull_solver_tests(MySolver)``.

    Parameters
    ----------
    factory : callable
        Function without arguments that creates the solver: its class, or one that passes options.
    expected_failures : mapping of str to str
        Map from check name to the reason why the solver fails it. Strict: a check listed here
        must fail.

    Returns
    -------
    callable
        Test function parametrised by the checks' names, which are stable across versions.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names an unknown check.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.testing import hull_solver_tests
    >>> test_mine = hull_solver_tests(lambda: fsb.plugins.create("hull_solver", "active_set"))
    """
    return hull_suite(factory, expected_failures).pytest_function()
