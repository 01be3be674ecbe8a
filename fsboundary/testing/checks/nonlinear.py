"""Conformance checks of boundary finders for non-linear heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.domain import Domain
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.modes import seeded
from fsboundary.plugins.interfaces import BoundaryFinder
from fsboundary.testing.invariants import (
    check_repr,
    make_instance,
    require_model_unchanged,
    require_unchanged,
)
from fsboundary.testing.problems import FlipProblem, cloud, redraw, third_classes, two_classes
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

_STEPS = 200
_ATOL = 1e-6
_FARTHER = 1.25
"""A point may be this many times as far as the flip point: closest is not certified."""

_UNBOUNDED = Domain.unbounded()


@final
class NonlinearSubject:
    """A finder for non-linear heads, called through the core."""

    def __init__(self, factory: Callable[[], BoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> BoundaryFinder:
        """Return a new finder."""
        finder: BoundaryFinder = make_instance(self._factory, BoundaryFinder)
        return finder

    def grade(
        self,
        head: Any,
        features: Tensor,
        targets: Tensor | Literal["nearest", "all"] = "nearest",
        *,
        domain: Domain = _UNBOUNDED,
        finder: BoundaryFinder | None = None,
        max_steps: int = _STEPS,
    ) -> FlipPoints:
        """Return the graded result of a finder."""
        finder = finder or self.new()
        return flip_points(
            head, features, targets, finder=finder, max_steps=max_steps, domain=domain
        )


def _small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a perceptron of four classes, float64, and features (5,3)."""
    with seeded(0):
        head = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 4)).double().eval()
    redraw(head, seed + 30)
    return head, cloud(5, 3, seed + 31)


def _require_close(one: Tensor, other: Tensor, what: str) -> None:
    close = torch.isclose(one, other, rtol=_ATOL, atol=_ATOL, equal_nan=True)
    require(bool(close.all()), f"{what}: {one[~close].tolist()} against {other[~close].tolist()}")


def _status_names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.reshape(-1).tolist())


def factory_makes_a_boundary_finder(subject: NonlinearSubject) -> None:
    """The factory works without options and returns a BoundaryFinder."""
    subject.new()


def repr_tells_options(subject: NonlinearSubject) -> None:
    """The repr recreates the finder and differs where options do."""
    check_repr(subject.new())


def no_rows(subject: NonlinearSubject) -> None:
    """No rows give an empty result."""
    head, features = _small()
    result = subject.grade(head, features[:0], "all")
    require(result.points.shape == (0, 3, 3), f"points have shape {tuple(result.points.shape)}")


def points_lie_on_a_boundary(subject: NonlinearSubject) -> None:
    """Each row gets a point at which the two largest logits of the head tie."""
    head, features = _small()
    for dtype in (torch.float64, torch.float32):
        head, features = head.to(dtype), features.to(dtype)
        result = subject.grade(head, features)
        require(bool(result.ok.all()), f"{dtype}: statuses {_status_names(result.status)}")
        logits = head(result.points[:, 0].to(dtype)).detach()
        best = logits.topk(2, dim=1).values
        relative = (best[:, 0] - best[:, 1]) / (logits.amax(dim=1) - logits.amin(dim=1))
        require(bool((relative <= 2e-5).all()), f"{dtype}: apart by {relative.tolist()}")


def known_answers(subject: NonlinearSubject) -> None:
    """For linear heads, points are hardly farther than the flip points."""
    problems: list[FlipProblem] = [two_classes(), third_classes()]
    for problem in problems:
        result = subject.grade(problem.head.logits, problem.features, problem.targets)
        require(bool(result.ok.all()), f"{problem.name}: statuses {_status_names(result.status)}")
        ratio = result.distance[:, 0] / problem.distance
        valid = (ratio >= 1 - _ATOL) & (ratio <= _FARTHER)
        require(bool(valid.all()), f"{problem.name}: {ratio.tolist()} times the true distance")


def nothing_is_claimed_of_closeness(subject: NonlinearSubject) -> None:
    """The lower bound is 0 and the gap the distance, whatever the finder claims."""
    head, features = _small()
    result = subject.grade(head, features, "all")
    require(bool((result.lower_bound == 0).all()), "a lower bound is above 0")
    _require_close(result.gap, result.distance, "gaps")
    allowed = {Status.ON_BOUNDARY, Status.INACCURATE, Status.MAX_STEPS}
    require(
        {Status(s) for s in result.status.flatten().tolist()} <= allowed,
        _status_names(result.status),
    )


def batch_equals_loop(subject: NonlinearSubject) -> None:
    """A batch gets the results of its single rows."""
    head, features = _small()
    together = subject.grade(head, features)
    single = [subject.grade(head, row[None]).distance for row in features]
    _require_close(together.distance, torch.cat(single), "batch against single rows")


def same_answer_every_time(subject: NonlinearSubject) -> None:
    """Two finders with the same options give the same points, bit for bit."""
    head, features = _small()
    first, second = subject.grade(head, features), subject.grade(head, features)
    require(torch.equal(first.points.nan_to_num(), second.points.nan_to_num()), "points differ")


def calls_do_not_remember(subject: NonlinearSubject) -> None:
    """A call with another head in between changes nothing."""
    (head, features), (other, others) = _small(), _small(1)
    finder = subject.new()
    subject.grade(other, others, finder=finder)
    result = subject.grade(head, features, finder=finder)
    _require_close(result.points, subject.grade(head, features).points, "points after other calls")


def a_row_that_is_not_finite_fails_alone(subject: NonlinearSubject) -> None:
    """A NaN row gets NOT_FINITE; the results of the others are unchanged."""
    head, features = _small()
    spoiled, others = features.clone(), [0, 1, 3, 4]
    spoiled[2, 1] = torch.nan
    result = subject.grade(head, spoiled)
    require(
        int(result.status[2, 0]) == Status.NOT_FINITE, f"status {_status_names(result.status[2])}"
    )
    _require_close(
        result.distance[others], subject.grade(head, features).distance[others], "beside a NaN row"
    )


def domain_is_respected(subject: NonlinearSubject) -> None:
    """Points lie in the domain that was passed."""
    head, features = _small()
    domain = Domain.nonnegative()
    result = subject.grade(head, features.abs(), domain=domain)
    require(bool(result.ok.any()), f"statuses {_status_names(result.status)}")
    require(
        bool(domain.contains(result.points[result.ok]).all()), "a point lies outside the domain"
    )


def no_boundary_no_point(subject: NonlinearSubject) -> None:
    """A class that is never on top, and a head that is constant, have NaN and no ok status."""
    head, features = _small()

    def lowered(z: Tensor) -> Tensor:
        return head(z) - 1e3 * torch.eye(4, dtype=z.dtype)[0]  # type: ignore[no-any-return]  # nn.Module

    def constant(z: Tensor) -> Tensor:
        return torch.arange(4.0, dtype=z.dtype).repeat(len(z), 1)

    for name, function in (("a class never on top", lowered), ("a constant head", constant)):
        result = subject.grade(function, features, torch.zeros(5, dtype=torch.int64))
        require(not bool(result.ok.any()), f"{name}: statuses {_status_names(result.status)}")
        require(bool(result.points.isnan().all()), f"{name}: a point was returned")


def inputs_and_process_are_left_alone(subject: NonlinearSubject) -> None:
    """Head, features, targets, default dtype, random generators and threads stay."""
    head, features = _small()
    targets = head(features).detach().argsort(dim=1)[:, -2]
    with require_unchanged(features=features, targets=targets), require_model_unchanged(head):
        subject.grade(head, features, targets)


def one_step_is_enough_to_answer(subject: NonlinearSubject) -> None:
    """After one step it returns a result; points not found are NaN."""
    head, features = _small()
    result = subject.grade(head, features, max_steps=1)
    require(torch.equal(result.points.isnan().all(dim=2), ~result.ok), _status_names(result.status))


NONLINEAR_CHECKS = (
    factory_makes_a_boundary_finder,
    repr_tells_options,
    no_rows,
    points_lie_on_a_boundary,
    known_answers,
    nothing_is_claimed_of_closeness,
    batch_equals_loop,
    same_answer_every_time,
    calls_do_not_remember,
    a_row_that_is_not_finite_fails_alone,
    domain_is_respected,
    no_boundary_no_point,
    inputs_and_process_are_left_alone,
    one_step_is_enough_to_answer,
)


def nonlinear_suite(
    factory: Callable[[], BoundaryFinder],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Suite[NonlinearSubject]:
    """Return the checks of a finder for non-linear heads, for use without pytest."""
    return Suite(NONLINEAR_CHECKS, lambda: NonlinearSubject(factory), expected_failures)
