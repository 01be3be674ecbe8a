"""The programs of a partition, one after the other or on several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from joblib import Parallel, delayed

from fsboundary.core.status import Status
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.boundedness import boundedness
from fsboundary.geometry.regions.largest_balls import (
    BallAnswer,
    largest_facet_ball,
    largest_region_ball,
)

Task = tuple[str, int, int]
""""region", i, i or "facet", i, j."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a task found.

    Attributes
    ----------
    ball : BallAnswer
    bounded : Status
        Of the region's recession cone, as in :class:`fsboundary.core.results.Partition`.
    """

    ball: BallAnswer
    bounded: Status


def solve(space: Arrangement, task: Task, common_ray: bool) -> Answer:
    """Return the answer of one task."""
    kind, i, j = task
    if kind == "facet":
        return Answer(ball=largest_facet_ball(space, i, j), bounded=Status.UNDECIDED)
    ball = largest_region_ball(space, i)
    if ball.status == Status.INFEASIBLE:
        return Answer(ball=ball, bounded=Status.INFEASIBLE)
    if not ball.lower > 0:
        return Answer(ball=ball, bounded=Status.UNDECIDED)
    if common_ray or ball.status == Status.UNBOUNDED:
        return Answer(ball=ball, bounded=Status.UNBOUNDED)
    bounded, programs = boundedness(space, i)
    return Answer(ball=replace(ball, programs=ball.programs + programs), bounded=bounded)


def solve_all(
    space: Arrangement, tasks: list[Task], common_ray: bool, n_jobs: int
) -> Iterator[tuple[Task, Answer]]:
    """Yield tasks and answers as they are finished.

    Parameters
    ----------
    n_jobs : int
        Processes, as in joblib: -1 for one a core.
    """
    if n_jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, solve(space, task, common_ray)
        return
    work = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    yield from work(delayed(_solved)(space, task, common_ray) for task in tasks)


def _solved(space: Arrangement, task: Task, common_ray: bool) -> tuple[Task, Answer]:
    return task, solve(space, task, common_ray)
