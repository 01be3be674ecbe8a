"""The programs of a partition, one after the other or on several processes.

Finished programs on disk, so that a run that was stopped goes on: one line each, appended.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np
from joblib import Parallel, delayed

from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.geometry.linear_programs import Array
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


FORMAT = "fsboundary partition 2"
"""Changes when the programs, their tolerances or the lines do."""


@final
class ProgramJournal:
    """The programs finished so far, and where the next are written.

    The first line names the head and the domain. The last line may be torn: then its program does
    not count.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    key : str
        Of :func:`journal_key`.

    Raises
    ------
    ArgumentError
        The file is of another head or domain, or something else.
    DataError
        A line other than the last is damaged.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._file, self._size = path, 0
        self.done: dict[Task, Answer] = {}
        if path is None:
            return
        header = _line({"format": FORMAT, "key": key})
        if path.exists():
            self._read(path, header)
        if self._size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._append(header)

    def add(self, task: Task, answer: Answer) -> None:
        """Keep one answer."""
        self.done[task] = answer
        ball = answer.ball
        found = bool(np.isfinite(ball.centre).all())
        entry = {
            "task": list(task),
            "status": int(ball.status),
            "lower": ball.lower,
            "upper": ball.upper,
            "centre": _coded(ball.centre) if found else None,
            "programs": ball.programs,
            "bounded": int(answer.bounded),
        }
        self._append(_line(entry | {"digest": _digest(entry)}))

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        with self._file.open("r+b") as file:
            file.truncate(self._size)  # what a killed process left of a line
            file.seek(self._size)
            file.write(line)
        self._size += len(line)

    def _read(self, path: Path, header: bytes) -> None:
        lines = [] if path.is_dir() else path.read_bytes().splitlines(keepends=True)
        if not path.is_dir() and len(lines) < 2 and header.startswith(b"".join(lines)):
            self._size = len(header) if lines == [header] else 0
            return
        if not lines or lines[0] != header:
            _refuse(path, lines)
        self._size = len(header)
        for number, line in enumerate(lines[1:], start=2):
            try:
                task, answer = _parsed(line)
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines):
                    raise DataError(
                        f"{path}: line {number} is damaged. Delete the file and run again"
                    ) from error
                return
            self.done[task] = answer
            self._size += len(line)


def journal_key(head: LinearHead, space: Arrangement) -> str:
    """Return a digest of what a program's answer depends on: head and limits of the domain."""
    digest = hashlib.sha256(head.fingerprint.encode())
    for values in (space.free, space.point, space.lower, space.upper):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:32]


def _refuse(path: Path, lines: list[bytes]) -> NoReturn:
    """Raise the ArgumentError of a file with another first line."""
    ours = bool(lines) and FORMAT.encode() in lines[0]
    raise ArgumentError(
        "resume",
        f"{path}, which is {'of another head or domain' if ours else 'something else'}",
        "a new path, or the file of a run with the same head and domain",
        "choose another path, or delete the file",
    )


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()[:32]


def _coded(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode()


def _parsed(line: bytes) -> tuple[Task, Answer]:
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    entry = json.loads(line)
    # its answer is taken for a certificate, so no bit of it may have changed
    if entry.pop("digest") != _digest(entry):
        raise ValueError("the line has changed")
    kind, i, j = entry["task"]
    centre = entry["centre"]
    ball = BallAnswer(
        status=Status(entry["status"]),
        lower=float(entry["lower"]),
        upper=float(entry["upper"]),
        centre=np.full(0, np.nan)
        if centre is None
        else np.frombuffer(base64.b64decode(centre), dtype="<f8").astype(np.float64),
        programs=int(entry["programs"]),
    )
    return (str(kind), int(i), int(j)), Answer(ball=ball, bounded=Status(entry["bounded"]))
