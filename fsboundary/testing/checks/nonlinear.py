"""What every finder of boundary points of non-linear heads must hold to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.domain import Domain
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.plugins.interfaces import BoundaryFinder
from fsboundary.testing.invariants import check_repr, left_alone, made_by, model_left_alone
from fsboundary.testing.problems import FlipProblem, cloud, redraw, third_classes, two_classes
from fsboundary.testing.suite import NONE, Suite, require

_STEPS = 200
_ATOL = 1e-6
_FARTHER = 1.25
"""A point may be this many times as far as the flip point: closest is not certified."""

_UNBOUNDED = Domain.unbounded()


@final
class NonlinearSubject:
    """A finder for non-linear heads, asked through the core."""

    def __init__(self, factory: Callable[[], BoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> BoundaryFinder:
        """Return a new finder."""
        finder: BoundaryFinder = made_by(self._factory, BoundaryFinder)
        return finder

    def graded(
        self,
        head: Any,
        features: Tensor,
        targets: Tensor | Literal["nearest", "all"] = "nearest",
        *,
        domain: Domain = _UNBOUNDED,
        finder: BoundaryFinder | None = None,
        max_steps: int = _STEPS,
    ) -> FlipPoints:
        """Return what the core makes of a finder's answer."""
        finder = finder or self.new()
        return flip_points(
            head, features, targets, finder=finder, max_steps=max_steps, domain=domain
        )


def _small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a perceptron of four classes, float64, and features (5,3)."""
    with torch.random.fork_rng(devices=[]):
        head = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 4)).double().eval()
    redraw(head, seed + 30)
    return head, cloud(5, 3, seed + 31)


def _same(one: Tensor, other: Tensor, what: str) -> None:
    close = torch.isclose(one, other, rtol=_ATOL, atol=_ATOL, equal_nan=True)
    require(bool(close.all()), f"{what}: {one[~close].tolist()} against {other[~close].tolist()}")


def _names(status: Tensor) -> str:
    return ", ".join(Status(code).name for code in status.reshape(-1).tolist())


def factory_makes_a_boundary_finder(subject: NonlinearSubject) -> None:
    """The factory works without options and makes a BoundaryFinder."""
    subject.new()


def repr_tells_options(subject: NonlinearSubject) -> None:
    """The repr makes the finder again and differs where options do."""
    check_repr(subject.new())


def no_rows(subject: NonlinearSubject) -> None:
    """No rows give an empty answer."""
    head, features = _small()
    found = subject.graded(head, features[:0], "all")
    require(found.points.shape == (0, 3, 3), f"points have shape {tuple(found.points.shape)}")


def points_lie_on_a_boundary(subject: NonlinearSubject) -> None:
    """Each row gets a point at which the head itself finds two classes level at the top."""
    head, features = _small()
    for dtype in (torch.float64, torch.float32):
        head, features = head.to(dtype), features.to(dtype)
        found = subject.graded(head, features)
        require(bool(found.ok.all()), f"{dtype}: statuses {_names(found.status)}")
        logits = head(found.points[:, 0].to(dtype)).detach()
        best = logits.topk(2, dim=1).values
        share = (best[:, 0] - best[:, 1]) / (logits.amax(dim=1) - logits.amin(dim=1))
        require(bool((share <= 2e-5).all()), f"{dtype}: apart by {share.tolist()}")


def known_answers(subject: NonlinearSubject) -> None:
    """Heads that are linear after all have points hardly farther than their flip points."""
    problems: list[FlipProblem] = [two_classes(), third_classes()]
    for problem in problems:
        found = subject.graded(problem.head.logits, problem.features, problem.targets)
        require(bool(found.ok.all()), f"{problem.name}: statuses {_names(found.status)}")
        ratio = found.distance[:, 0] / problem.distance
        fine = (ratio >= 1 - _ATOL) & (ratio <= _FARTHER)
        require(bool(fine.all()), f"{problem.name}: {ratio.tolist()} times the true distance")


def nothing_is_claimed_of_closeness(subject: NonlinearSubject) -> None:
    """The lower bound is 0 and the gap the distance, whatever the finder says."""
    head, features = _small()
    found = subject.graded(head, features, "all")
    require(bool((found.lower_bound == 0).all()), "a lower bound is above 0")
    _same(found.gap, found.distance, "gaps")
    said = {Status.ON_BOUNDARY, Status.INACCURATE, Status.MAX_STEPS}
    require({Status(s) for s in found.status.flatten().tolist()} <= said, _names(found.status))


def batch_equals_loop(subject: NonlinearSubject) -> None:
    """Rows together get the answers that each gets alone."""
    head, features = _small()
    together = subject.graded(head, features)
    alone = [subject.graded(head, row[None]).distance for row in features]
    _same(together.distance, torch.cat(alone), "together against alone")


def same_answer_every_time(subject: NonlinearSubject) -> None:
    """Two finders with the same options give the same points, bit for bit."""
    head, features = _small()
    first, second = subject.graded(head, features), subject.graded(head, features)
    require(torch.equal(first.points.nan_to_num(), second.points.nan_to_num()), "points differ")


def calls_do_not_remember(subject: NonlinearSubject) -> None:
    """Another head, asked in between, changes nothing."""
    (head, features), (other, others) = _small(), _small(1)
    finder = subject.new()
    subject.graded(other, others, finder=finder)
    found = subject.graded(head, features, finder=finder)
    _same(found.points, subject.graded(head, features).points, "points after other calls")


def a_row_that_is_not_finite_fails_alone(subject: NonlinearSubject) -> None:
    """A NaN row gets NOT_FINITE; the others' answers stand."""
    head, features = _small()
    spoilt, kept = features.clone(), [0, 1, 3, 4]
    spoilt[2, 1] = torch.nan
    found = subject.graded(head, spoilt)
    require(int(found.status[2, 0]) == Status.NOT_FINITE, f"status {_names(found.status[2])}")
    _same(found.distance[kept], subject.graded(head, features).distance[kept], "beside a NaN row")


def domain_is_respected(subject: NonlinearSubject) -> None:
    """Points lie in the domain that was passed."""
    head, features = _small()
    domain = Domain.nonnegative()
    found = subject.graded(head, features.abs(), domain=domain)
    require(bool(found.ok.any()), f"statuses {_names(found.status)}")
    require(bool(domain.contains(found.points[found.ok]).all()), "a point lies outside the domain")


def no_boundary_no_point(subject: NonlinearSubject) -> None:
    """A class that is never on top, and a head that is constant, have NaN and no ok status."""
    head, features = _small()

    def lowered(z: Tensor) -> Tensor:
        return head(z) - 1e3 * torch.eye(4, dtype=z.dtype)[0]  # type: ignore[no-any-return]  # nn.Module

    def constant(z: Tensor) -> Tensor:
        return torch.arange(4.0, dtype=z.dtype).repeat(len(z), 1)

    for name, function in (("a class never on top", lowered), ("a constant head", constant)):
        found = subject.graded(function, features, torch.zeros(5, dtype=torch.int64))
        require(not bool(found.ok.any()), f"{name}: statuses {_names(found.status)}")
        require(bool(found.points.isnan().all()), f"{name}: a point was returned")


def inputs_and_process_are_left_alone(subject: NonlinearSubject) -> None:
    """Head, features, targets, default dtype, random generators and threads stay."""
    head, features = _small()
    targets = head(features).detach().argsort(dim=1)[:, -2]
    with left_alone(features=features, targets=targets), model_left_alone(head):
        subject.graded(head, features, targets)


def one_step_is_enough_to_answer(subject: NonlinearSubject) -> None:
    """Stopped after one step, it answers; what it has not found is NaN."""
    head, features = _small()
    found = subject.graded(head, features, max_steps=1)
    require(torch.equal(found.points.isnan().all(dim=2), ~found.ok), _names(found.status))


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
    factory: Callable[[], BoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[NonlinearSubject]:
    """Return the checks of a finder for non-linear heads, to be run without pytest."""
    return Suite(NONLINEAR_CHECKS, lambda: NonlinearSubject(factory), expected_failures)
