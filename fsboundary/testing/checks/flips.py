"""What every boundary finder in feature space must hold to."""

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
from fsboundary.testing.invariants import check_repr, left_alone, made_by
from fsboundary.testing.problems import (
    FlipProblem,
    domains,
    ordinary,
    third_classes,
    two_classes,
    unreachable,
)
from fsboundary.testing.suite import NONE, Suite, require

STEPS = 500

_RTOL, _ATOL = 1e-6, 1e-7
"""Of distances in feature units: problems are of size 1, and claims may be less exact than
certificates."""


@final
class FlipSubject:
    """A boundary finder, asked directly or through the core."""

    def __init__(self, factory: Callable[[], BoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> BoundaryFinder:
        """Return a new finder."""
        finder: BoundaryFinder = made_by(self._factory, BoundaryFinder)
        return finder

    def ask(
        self, problem: FlipProblem, *, finder: BoundaryFinder | None = None, max_steps: int = STEPS
    ) -> FlipPoints:
        """Return what a finder says itself."""
        return (finder or self.new()).find(
            problem.head,
            problem.features,
            targets=problem.targets[:, None],
            tolerance=FLIP_RTOL,
            max_steps=max_steps,
        )

    def graded(
        self,
        head: LinearHead,
        features: Tensor,
        targets: Tensor | Literal["nearest", "all"],
        max_steps: int = STEPS,
    ) -> FlipPoints:
        """Return what the core makes of it."""
        return flip_points(head, features, targets, finder=self.new(), max_steps=max_steps)

    def solve(self, problem: FlipProblem, max_steps: int = STEPS) -> FlipPoints:
        """Return the core's grade of a problem's answer."""
        return self.graded(problem.head, problem.features, problem.targets, max_steps)


def _same(one: Tensor, other: Tensor, what: str) -> None:
    close = torch.isclose(one, other, rtol=_RTOL, atol=_ATOL, equal_nan=True)
    require(bool(close.all()), f"{what}: {one[~close].tolist()} against {other[~close].tolist()}")


def _names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.reshape(-1).tolist())


def _right(subject: FlipSubject, problem: FlipProblem) -> None:
    found = subject.solve(problem)
    require(bool(found.ok.all()), f"{problem.name}: statuses {_names(found.status)}")
    _same(found.distance[:, 0], problem.distance, f"{problem.name}: distances")


def factory_makes_a_boundary_finder(subject: FlipSubject) -> None:
    """The factory works without options and makes a BoundaryFinder."""
    subject.new()


def repr_tells_options(subject: FlipSubject) -> None:
    """The repr makes the finder again and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: FlipSubject) -> None:
    """Every field has the documented shape, dtype and device, for any number of targets."""
    problem = ordinary()
    for width in (1, 3):
        targets = (problem.head.predict(problem.features)[:, None] + 1 + torch.arange(width)) % 6
        found = subject.new().find(
            problem.head,
            problem.features,
            targets=targets,
            tolerance=FLIP_RTOL,
            max_steps=STEPS,
        )
        require(isinstance(found, FlipPoints), f"find returned a {type(found).__name__}")
        slots = found.active.shape[-1] if found.active.ndim == 3 else 0
        many = (5, width, slots)
        shapes = {"points": (5, width, 5), "source": (5,), "active": many, "multipliers": many}
        whole = {"source", "target", "active", "status", "steps"}
        for name, value in found.to_dict().items():
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
    found = finder.find(head, none, targets=targets, tolerance=FLIP_RTOL, max_steps=STEPS)
    require(found.points.shape == (0, 2, 5), f"points have shape {tuple(found.points.shape)}")
    for name, value in found.to_dict().items():
        require(len(value) == 0, f"{name} has {len(value)} rows")


def batch_equals_loop(subject: FlipSubject) -> None:
    """Rows and targets together get the answers that each gets alone."""
    problem = ordinary()
    head, features = problem.head, problem.features
    together = subject.graded(head, features, "all")
    for row in range(len(features)):
        alone = [
            subject.graded(head, features[row][None], target[None]).distance[0, 0]
            for target in together.target[row]
        ]
        _same(together.distance[row], torch.stack(alone), f"row {row} together against alone")


def order_of_rows(subject: FlipSubject) -> None:
    """Answers go with their rows, whatever the order."""
    problem, order = ordinary(), torch.tensor([3, 0, 4, 1, 2])
    straight = subject.solve(problem)
    turned = subject.graded(problem.head, problem.features[order], problem.targets[order])
    _same(turned.distance, straight.distance[order], "rows reordered")
    _same(turned.points, straight.points[order], "points of rows reordered")


def order_of_classes(subject: FlipSubject) -> None:
    """Classes with other numbers have the same boundaries."""
    problem, order = ordinary(), torch.tensor([4, 2, 0, 5, 1, 3])
    head = problem.head
    turned = LinearHead(head.weight[order], head.bias[order], head.domain)
    found = subject.graded(turned, problem.features, order.argsort()[problem.targets])
    _same(found.distance, subject.solve(problem).distance, "classes renumbered")


def inputs_and_process_are_left_alone(subject: FlipSubject) -> None:
    """Head, features, targets, default dtype, random generators and threads stay as they were."""
    problem = ordinary("nonnegative")
    head = problem.head
    with left_alone(
        features=problem.features, targets=problem.targets, weight=head.weight, bias=head.bias
    ):
        subject.ask(problem)


def same_answer_every_time(subject: FlipSubject) -> None:
    """Two finders with the same options give the same answer, bit for bit."""
    problem = ordinary()
    first, second = subject.ask(problem), subject.ask(problem)
    for name, value in first.to_dict().items():
        same = torch.equal(value.nan_to_num(), getattr(second, name).nan_to_num())
        require(same, f"{name} differs from call to call")


def calls_do_not_remember(subject: FlipSubject) -> None:
    """A finder that has answered other questions answers as a new one does."""
    plain, positive = ordinary(), ordinary("nonnegative")
    finder = subject.new()
    for problem in (plain, positive, plain):
        found, fresh = subject.ask(problem, finder=finder), subject.ask(problem)
        _same(found.points, fresh.points, "points after other calls")
        _same(found.multipliers, fresh.multipliers, "multipliers after other calls")


def a_row_that_is_not_finite_fails_alone(subject: FlipSubject) -> None:
    """A NaN row gets NOT_FINITE; the others' answers stand."""
    problem, kept = ordinary(), [0, 1, 3, 4]
    spoilt = problem.features.clone()
    spoilt[2, 1] = torch.nan
    found = subject.graded(problem.head, spoilt, problem.targets)
    require(int(found.status[2, 0]) == Status.NOT_FINITE, f"status {_names(found.status[2])}")
    _same(found.distance[kept], subject.solve(problem).distance[kept], "beside a NaN row")


def one_step_keeps_valid_bounds(subject: FlipSubject) -> None:
    """Stopped after one step, it answers, and no bound exceeds the true distance."""
    for problem in (two_classes(), third_classes(), *domains()):
        found = subject.solve(problem, max_steps=1)
        high = found.lower_bound[:, 0] > problem.distance * (1 + 1e-9) + 1e-12
        require(not bool(high.any()), f"{problem.name}: a bound is above the distance")
        said = subject.ask(problem, max_steps=1).lower_bound[:, 0]
        high = said > problem.distance * (1 + _RTOL) + _ATOL
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")


def known_answers_of_two_classes(subject: FlipSubject) -> None:
    """The distance to a hyperplane is certified and right."""
    _right(subject, two_classes())


def known_answers_with_third_classes(subject: FlipSubject) -> None:
    """So are distances where a third class is in the way."""
    _right(subject, third_classes())


def known_answers_in_a_domain(subject: FlipSubject) -> None:
    """So are distances where the domain cuts, nonnegative or a box."""
    for problem in domains():
        _right(subject, problem)


def ordinary_heads_are_certified(subject: FlipSubject) -> None:
    """Random heads of six classes, in each kind of domain, get certified answers."""
    for kind in ("unbounded", "nonnegative", "box"):
        problem = ordinary(kind)
        found = subject.graded(problem.head, problem.features, "nearest")
        require(bool(found.ok.all()), f"{kind}, nearest: {_names(found.status)}")
        found = subject.graded(problem.head, problem.features, "all")
        require(bool(found.ok.all()), f"{kind}, all classes: {_names(found.status)}")


def domain_is_respected(subject: FlipSubject) -> None:
    """Proposed points lie in the domain."""
    for problem in (*domains(), ordinary("nonnegative"), ordinary("box")):
        points = subject.ask(problem).points.reshape(-1, problem.head.num_features)
        given = points[torch.isfinite(points).all(dim=1)]
        inside = problem.head.domain.contains(given, atol=1e-6)
        require(bool(inside.all()), f"{problem.name}: a point lies outside the domain")


def unreachable_target_is_infeasible(subject: FlipSubject) -> None:
    """A class that the domain rules out is proved unreachable: INFEASIBLE, distance +inf."""
    problem = unreachable()
    found = subject.solve(problem)
    proved = found.status == Status.INFEASIBLE
    require(bool(proved.all()), f"statuses {_names(found.status)}")
    _same(found.distance[:, 0], problem.distance, "distance to nowhere")


def claims_are_true(subject: FlipSubject) -> None:
    """What it says of its answer, the core finds too; it may leave distance and bound open."""
    for problem in (two_classes(), third_classes(), *domains()):
        said, graded = subject.ask(problem), subject.solve(problem)
        own = torch.linalg.vector_norm(said.points - problem.features[:, None], dim=2)
        told = torch.isfinite(said.distance)
        _same(said.distance[told], own[told], f"{problem.name}: claimed against true distance")
        high = said.lower_bound[:, 0] > problem.distance * (1 + _RTOL) + _ATOL
        require(not bool(high.any()), f"{problem.name}: it claims a bound above the distance")
        sure = said.status == Status.CONVERGED
        fine = bool(graded.ok[sure].all())
        require(fine, f"{problem.name}: it claims CONVERGED, the core does not")


def certificates_can_be_checked(subject: FlipSubject) -> None:
    """Points and multipliers alone give the distance and the bound that the core certified."""
    problem = two_classes()
    found, head = subject.solve(problem), problem.head
    require(bool(found.ok.all()), f"statuses {_names(found.status)}")
    points, z = found.points[:, 0], problem.features
    _same(found.distance[:, 0], torch.linalg.vector_norm(points - z, dim=1), "distance of points")
    i, j = found.source, found.target[:, 0]
    normal, offset = head.weight[i] - head.weight[j], head.bias[i] - head.bias[j]
    factor = found.multipliers[:, 0].sum(dim=1, keepdim=True)
    step = factor * normal
    tie = ((z + step) * normal).sum(dim=1) + offset
    dual = 0.5 * step.square().sum(dim=1) - factor[:, 0] * tie
    _same(found.lower_bound[:, 0], (2 * dual).clamp_min(0).sqrt(), "bound from multipliers")


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
    factory: Callable[[], BoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[FlipSubject]:
    """Return the checks of a boundary finder, to be run without pytest."""
    return Suite(FLIP_CHECKS, lambda: FlipSubject(factory), expected_failures)


def boundary_finder_tests(
    factory: Callable[[], BoundaryFinder],
    expected_failures: Mapping[str, str] = NONE,
    *,
    nonlinear_head: bool = False,
) -> Callable[[str], None]:
    """Return a pytest function that holds a boundary finder in feature space to its contract.

    Parameters
    ----------
    factory : callable
        Makes the finder, without arguments.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.
    nonlinear_head : bool
        Whether it is held to the contract of the capability of that name, instead of that for
        linear heads.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    if nonlinear_head:
        return nonlinear_suite(factory, expected_failures).pytest_function()
    return flip_suite(factory, expected_failures).pytest_function()
