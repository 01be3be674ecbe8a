"""Conformance checks of boundary finders in feature space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.boundaries import flip_points
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.plugins.interfaces import BoundaryFinder
from fsboundary.testing.checks.nonlinear import nonlinear_suite
from fsboundary.testing.invariants import check_repr, make_instance, require_unchanged
from fsboundary.testing.problems import (
    FlipProblem,
    domains,
    ordinary,
    third_classes,
    two_classes,
    unreachable,
)
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

STEPS = 500

_RTOL, _ATOL = 1e-6, 1e-7
"""Tolerances of distances in feature units: problems are of size 1, and claims may be less exact
than certificates."""


@final
class FlipSubject:
    """A boundary finder, called directly or through the core."""

    def __init__(self, factory: Callable[[], BoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> BoundaryFinder:
        """Return a new finder."""
        finder: BoundaryFinder = make_instance(self._factory, BoundaryFinder)
        return finder

    def propose(
        self, problem: FlipProblem, *, finder: BoundaryFinder | None = None, max_steps: int = STEPS
    ) -> FlipPoints:
        """Return the raw proposal of a finder."""
        return (finder or self.new()).find(
            problem.head,
            problem.features,
            targets=problem.targets[:, None],
            tolerance=FLIP_RTOL,
            max_steps=max_steps,
        )

    def grade(
        self,
        head: LinearHead,
        features: Tensor,
        targets: Tensor | Literal["nearest", "all"],
        max_steps: int = STEPS,
    ) -> FlipPoints:
        """Return the graded result."""
        return flip_points(head, features, targets, finder=self.new(), max_steps=max_steps)

    def solve(self, problem: FlipProblem, max_steps: int = STEPS) -> FlipPoints:
        """Return the graded result of a problem."""
        return self.grade(problem.head, problem.features, problem.targets, max_steps)


def _require_close(one: Tensor, other: Tensor, what: str) -> None:
    close = torch.isclose(one, other, rtol=_RTOL, atol=_ATOL, equal_nan=True)
    require(bool(close.all()), f"{what}: {one[~close].tolist()} against {other[~close].tolist()}")


def _status_names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.reshape(-1).tolist())


def _require_distances(subject: FlipSubject, problem: FlipProblem) -> None:
    result = subject.solve(problem)
    require(bool(result.ok.all()), f"{problem.name}: statuses {_status_names(result.status)}")
    _require_close(result.distance[:, 0], problem.distance, f"{problem.name}: distances")


def factory_makes_a_boundary_finder(subject: FlipSubject) -> None:
    """The factory works without options and returns a BoundaryFinder."""
    subject.new()


def repr_tells_options(subject: FlipSubject) -> None:
    """The repr recreates the finder and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: FlipSubject) -> None:
    """Every field has the documented shape, dtype and device, for any number of targets."""
    problem = ordinary()
    for width in (1, 3):
        targets = (problem.head.predict(problem.features)[:, None] + 1 + torch.arange(width)) % 6
        result = subject.new().find(
            problem.head,
            problem.features,
            targets=targets,
            tolerance=FLIP_RTOL,
            max_steps=STEPS,
        )
        require(isinstance(result, FlipPoints), f"find returned a {type(result).__name__}")
        slots = result.active.shape[-1] if result.active.ndim == 3 else 0
        many = (5, width, slots)
        shapes = {"points": (5, width, 5), "source": (5,), "active": many, "multipliers": many}
        whole = {"source", "target", "active", "status", "steps"}
        for name, value in result.to_dict().items():
            wanted = shapes.get(name, (5, width))
            got = tuple(value.shape)
            require(got == wanted, f"{name} has shape {got}; wanted {wanted}")
            dtype = torch.int64 if name in whole else torch.float64
            require(value.dtype == dtype, f"{name} is {value.dtype}; wanted {dtype}")
            require(value.device == problem.features.device, f"{name} is on {value.device}")
            require(not value.requires_grad, f"{name} carries a graph")


def no_rows(subject: FlipSubject) -> None:
    """B = 0 gives empty fields."""
    head = ordinary().head
    none, targets = torch.zeros(0, 5).double(), torch.zeros(0, 2, dtype=torch.int64)
    finder = subject.new()
    result = finder.find(head, none, targets=targets, tolerance=FLIP_RTOL, max_steps=STEPS)
    require(result.points.shape == (0, 2, 5), f"points have shape {tuple(result.points.shape)}")
    for name, value in result.to_dict().items():
        require(len(value) == 0, f"{name} has {len(value)} rows")


def batch_equals_loop(subject: FlipSubject) -> None:
    """A batch gets the results of its single rows and targets."""
    problem = ordinary()
    head, features = problem.head, problem.features
    together = subject.grade(head, features, "all")
    for row in range(len(features)):
        single = [
            subject.grade(head, features[row][None], target[None]).distance[0, 0]
            for target in together.target[row]
        ]
        _require_close(
            together.distance[row], torch.stack(single), f"row {row}, batch against single targets"
        )


def order_of_rows(subject: FlipSubject) -> None:
    """Results follow their rows in any order."""
    problem, order = ordinary(), torch.tensor([3, 0, 4, 1, 2])
    straight = subject.solve(problem)
    permuted = subject.grade(problem.head, problem.features[order], problem.targets[order])
    _require_close(permuted.distance, straight.distance[order], "rows reordered")
    _require_close(permuted.points, straight.points[order], "points of rows reordered")


def order_of_classes(subject: FlipSubject) -> None:
    """Classes with other numbers have the same boundaries."""
    problem, order = ordinary(), torch.tensor([4, 2, 0, 5, 1, 3])
    head = problem.head
    permuted = LinearHead(head.weight[order], head.bias[order], head.domain)
    result = subject.grade(permuted, problem.features, order.argsort()[problem.targets])
    _require_close(result.distance, subject.solve(problem).distance, "classes renumbered")


def inputs_and_process_are_left_alone(subject: FlipSubject) -> None:
    """Head, features, targets, default dtype, random generators and threads stay unchanged."""
    problem = ordinary("nonnegative")
    head = problem.head
    with require_unchanged(
        features=problem.features, targets=problem.targets, weight=head._weight, bias=head._bias
    ):
        subject.propose(problem)


def same_answer_every_time(subject: FlipSubject) -> None:
    """Two finders with the same options give the same result, bit for bit."""
    problem = ordinary()
    first, second = subject.propose(problem), subject.propose(problem)
    for name, value in first.to_dict().items():
        same = torch.equal(value.nan_to_num(), getattr(second, name).nan_to_num())
        require(same, f"{name} differs from call to call")


def calls_do_not_remember(subject: FlipSubject) -> None:
    """A finder that has solved other problems gives the same results as a new one."""
    plain, positive = ordinary(), ordinary("nonnegative")
    finder = subject.new()
    for problem in (plain, positive, plain):
        result, fresh = subject.propose(problem, finder=finder), subject.propose(problem)
        _require_close(result.points, fresh.points, "points after other calls")
        _require_close(result.multipliers, fresh.multipliers, "multipliers after other calls")


def a_row_that_is_not_finite_fails_alone(subject: FlipSubject) -> None:
    """A NaN row gets NOT_FINITE; the results of the others are unchanged."""
    problem, others = ordinary(), [0, 1, 3, 4]
    spoiled = problem.features.clone()
    spoiled[2, 1] = torch.nan
    result = subject.grade(problem.head, spoiled, problem.targets)
    require(
        int(result.status[2, 0]) == Status.NOT_FINITE, f"status {_status_names(result.status[2])}"
    )
    _require_close(
        result.distance[others], subject.solve(problem).distance[others], "beside a NaN row"
    )


def one_step_keeps_valid_bounds(subject: FlipSubject) -> None:
    """After one step it returns a result, and no bound exceeds the true distance."""
    for problem in (two_classes(), third_classes(), *domains()):
        result = subject.solve(problem, max_steps=1)
        high = result.lower_bound[:, 0] > problem.distance * (1 + 1e-9) + 1e-12
        require(not bool(high.any()), f"{problem.name}: a bound is above the distance")
        claimed = subject.propose(problem, max_steps=1).lower_bound[:, 0]
        high = claimed > problem.distance * (1 + _RTOL) + _ATOL
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")


def known_answers_of_two_classes(subject: FlipSubject) -> None:
    """The distance to a hyperplane is certified and correct."""
    _require_distances(subject, two_classes())


def known_answers_with_third_classes(subject: FlipSubject) -> None:
    """Distances with a third class in the way are certified and correct."""
    _require_distances(subject, third_classes())


def known_answers_in_a_domain(subject: FlipSubject) -> None:
    """Distances with an active domain, nonnegative or a box, are certified and correct."""
    for problem in domains():
        _require_distances(subject, problem)


def ordinary_heads_are_certified(subject: FlipSubject) -> None:
    """Random heads of six classes, in each kind of domain, get certified results."""
    for kind in ("unbounded", "nonnegative", "box"):
        problem = ordinary(kind)
        result = subject.grade(problem.head, problem.features, "nearest")
        require(bool(result.ok.all()), f"{kind}, nearest: {_status_names(result.status)}")
        result = subject.grade(problem.head, problem.features, "all")
        require(bool(result.ok.all()), f"{kind}, all classes: {_status_names(result.status)}")


def domain_is_respected(subject: FlipSubject) -> None:
    """Proposed points lie in the domain."""
    for problem in (*domains(), ordinary("nonnegative"), ordinary("box")):
        points = subject.propose(problem).points.reshape(-1, problem.head.num_features)
        given = points[torch.isfinite(points).all(dim=1)]
        inside = problem.head.domain.contains(given, atol=1e-6)
        require(bool(inside.all()), f"{problem.name}: a point lies outside the domain")


def unreachable_target_is_infeasible(subject: FlipSubject) -> None:
    """A class that the domain excludes is proved unreachable: INFEASIBLE, distance +inf."""
    problem = unreachable()
    result = subject.solve(problem)
    proved = result.status == Status.INFEASIBLE
    require(bool(proved.all()), f"statuses {_status_names(result.status)}")
    _require_close(result.distance[:, 0], problem.distance, "distance to an unreachable class")


def claims_are_true(subject: FlipSubject) -> None:
    """Its claims about its result agree with the core; distance and bound may be left open."""
    for problem in (two_classes(), third_classes(), *domains()):
        claimed, graded = subject.propose(problem), subject.solve(problem)
        computed = torch.linalg.vector_norm(claimed.points - problem.features[:, None], dim=2)
        stated = torch.isfinite(claimed.distance)
        _require_close(
            claimed.distance[stated],
            computed[stated],
            f"{problem.name}: claimed against true distance",
        )
        high = claimed.lower_bound[:, 0] > problem.distance * (1 + _RTOL) + _ATOL
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")
        converged = claimed.status == Status.CONVERGED
        valid = bool(graded.ok[converged].all())
        require(valid, f"{problem.name}: it claims CONVERGED, the core does not")


def certificates_can_be_checked(subject: FlipSubject) -> None:
    """Points and multipliers suffice to compute the certified distance and bound."""
    problem = two_classes()
    result, head = subject.solve(problem), problem.head
    require(bool(result.ok.all()), f"statuses {_status_names(result.status)}")
    points, z = result.points[:, 0], problem.features
    _require_close(
        result.distance[:, 0], torch.linalg.vector_norm(points - z, dim=1), "distance of points"
    )
    i, j = result.source, result.target[:, 0]
    normal, offset = head.weight[i] - head.weight[j], head.bias[i] - head.bias[j]
    factor = result.multipliers[:, 0].sum(dim=1, keepdim=True)
    step = factor * normal
    tie = ((z + step) * normal).sum(dim=1) + offset
    dual = 0.5 * step.square().sum(dim=1) - factor[:, 0] * tie
    _require_close(
        result.lower_bound[:, 0], (2 * dual).clamp_min(0).sqrt(), "bound from multipliers"
    )


FLIP_CHECKS = (
    factory_makes_a_boundary_finder,
    repr_tells_options,
    shapes_dtypes_and_device,
    no_rows,
    batch_equals_loop,
    order_of_rows,
    order_of_classes,
    inputs_and_process_are_left_alone,
    same_answer_every_time,
    calls_do_not_remember,
    a_row_that_is_not_finite_fails_alone,
    one_step_keeps_valid_bounds,
    known_answers_of_two_classes,
    known_answers_with_third_classes,
    known_answers_in_a_domain,
    ordinary_heads_are_certified,
    domain_is_respected,
    unreachable_target_is_infeasible,
    claims_are_true,
    certificates_can_be_checked,
)


def flip_suite(
    factory: Callable[[], BoundaryFinder],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Suite[FlipSubject]:
    """Return the checks of a boundary finder, for use without pytest."""
    return Suite(FLIP_CHECKS, lambda: FlipSubject(factory), expected_failures)


def boundary_finder_tests(
    factory: Callable[[], BoundaryFinder],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
    *,
    nonlinear_head: bool = False,
) -> Callable[[str], None]:
    """Return a pytest function that checks a boundary finder against its contract.

    Parameters
    ----------
    factory : callable
        Function without arguments that creates the finder.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.
    nonlinear_head : bool
        Whether to check the contract of the capability of that name instead of that for linear
        heads.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names an unknown check.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.testing import boundary_finder_tests
    >>> def make():
    ...     return fsb.plugins.create("boundary_finder", "closed_form")
    >>> test_mine = boundary_finder_tests(make)
    """
    if nonlinear_head:
        return nonlinear_suite(factory, expected_failures).pytest_function()
    return flip_suite(factory, expected_failures).pytest_function()
