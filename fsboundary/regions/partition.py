"""The programs of a partition, one after the other or on several processes.

Finished programs on disk, so that a run that was stopped goes on: one line each, appended.

How a head divides feature space: regions, their sizes, and which classes are neighbours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, final

import numpy as np
import torch
from jaxtyping import Int
from joblib import Parallel, delayed
from torch import Tensor
from tqdm import tqdm

from fsboundary.core.checks import check_head
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results.partition import Partition
from fsboundary.core.status import Status
from fsboundary.geometry.linear_programs import Array
from fsboundary.geometry.norms import pair_norms
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.boundedness import boundedness, has_common_ray
from fsboundary.geometry.regions.facets import width_bounds
from fsboundary.geometry.regions.largest_balls import (
    BallAnswer,
    largest_facet_ball,
    largest_region_ball,
)
from fsboundary.regions.angles import weight_angles
from fsboundary.regions.limits import check_integer, check_pairs, check_path, common_limits
from fsboundary.regions.witnesses import FacetTable, find_witnesses

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


FEW_CLASSES = 200
"""Up to this many classes "auto" runs a linear program for every pair."""

SAMPLED = 2000
"""Above, it runs so many at most: of pairs without a witness first, drawn with the seed."""


def partition(
    head: LinearHead,
    within: Domain | None = None,
    *,
    pairs: Literal["auto"] | Int[Tensor, "P 2"] = "auto",
    n_jobs: int = 1,
    resume: str | os.PathLike[str] | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Partition:
    """Return regions and facets of all classes, with float64 certificates.

    Linear programs (HiGHS) propose centres and multipliers; what is reported is what these prove
    when evaluated in float64 with their rounding taken off (design.md, section 1, "Facet"). A
    facet is a common border of dimension d - 1, the domain's faces included: regions that touch in
    less are no neighbours. Features whose two limits agree do not count as dimensions.

    Parameters
    ----------
    head : LinearHead
    within : Domain, optional
        Cut the domain of the head down to this: ``Domain.box(*bank.range())`` is the observed box,
        in which every radius is finite.
    pairs : "auto" or integer Tensor (P, 2)
        The pairs of classes whose linear program is run. "auto": all, up to 200 classes. With more
        classes, or with a tensor, points on ties (witnesses) prove facets of all the other pairs
        where they can, and pairs without one stay UNDECIDED; "auto" then runs the programs of at
        most 2,000 pairs: of those without a witness first, drawn at random, then of others.
    n_jobs : int
        Processes, as in joblib; -1 for one a core.
    resume : path, optional
        A file for finished programs. A run with the same head and domain goes on from it, also
        with other `pairs`; a program half written when a run was stopped is run again.
    seed : int
        Of the pairs drawn.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    Partition

    Raises
    ------
    ArgumentError
        Wrong types or widths, a domain that `within` does not meet or that is a single point,
        classes out of range, or a file of another head or domain.
    DataError
        A damaged file.
    """
    check_head(head)
    lower, upper = common_limits(head, within)
    asked = check_pairs(head.num_classes, pairs)
    check_integer("n_jobs", n_jobs, n_jobs != 0, "an integer other than 0", "pass 1, or -1")
    check_integer("seed", seed, True, "an integer", "pass 0")
    file = check_path("resume", resume)
    space = Arrangement.of(head, lower, upper)
    journal = ProgramJournal(file, journal_key(head, space))
    k = head.num_classes
    common_ray = has_common_ray(space)
    with tqdm(total=k, unit="program", disable=not show_progress) as bar:

        def run(tasks: list[Task]) -> None:
            bar.total = bar.n + len(tasks)
            new = [task for task in tasks if task not in journal.done]
            bar.update(len(tasks) - len(new))
            for task, answer in solve_all(space, new, common_ray, n_jobs):
                journal.add(task, answer)
                bar.update()

        run([("region", i, i) for i in range(k)])
        regions = [journal.done["region", i, i] for i in range(k)]
        table = FacetTable(space)
        empty = torch.tensor([answer.ball.upper < 0 for answer in regions])
        if asked is None and k <= FEW_CLASSES:
            asked = torch.combinations(torch.arange(k))
        else:
            _witness(space, regions, table)
            if asked is None:
                asked = _sampled(table.radius, empty, seed)
        witnessed = table.radius > 0
        # an empty region has no facet
        asked = asked[~empty[asked].any(dim=1)]
        tasks: list[Task] = [("facet", int(i), int(j)) for i, j in asked.tolist()]
        run(tasks)
    facets = {(i, j): journal.done["facet", i, j] for _, i, j in tasks}
    found = _assemble(head, space, regions, facets, table, witnessed)
    return found.to(head.weight.device)


def _witness(space: Arrangement, regions: list[Answer], table: FacetTable) -> None:
    centres = np.full((len(regions), space.width), np.nan)
    for i, answer in enumerate(regions):
        if answer.ball.lower > 0:
            centres[i] = answer.ball.centre
    find_witnesses(space, centres, table)


def _sampled(radius: Tensor, empty: Tensor, seed: int) -> Tensor:
    """Return the pairs (P, 2) whose programs "auto" runs, ascending."""
    pairs = torch.combinations(torch.arange(len(radius)))
    pairs = pairs[~empty[pairs].any(dim=1)]
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    known = radius[pairs[:, 0], pairs[:, 1]] > 0
    drawn: Tensor = pairs[known.long().argsort(stable=True)[:SAMPLED]].unique(dim=0)
    return drawn


def _assemble(
    head: LinearHead,
    space: Arrangement,
    regions: list[Answer],
    facets: dict[tuple[int, int], Answer],
    table: FacetTable,
    witnessed: Tensor,
) -> Partition:
    k, none = len(regions), torch.nan
    region_status = torch.tensor([int(answer.ball.status) for answer in regions])
    bounded_status = torch.tensor([int(answer.bounded) for answer in regions])
    nonempty = torch.tensor([answer.ball.lower > 0 for answer in regions])
    centre = torch.full((k, head.num_features), none, dtype=torch.float64)
    for i in nonempty.nonzero()[:, 0].tolist():
        centre[i] = torch.from_numpy(space.lift(regions[i].ball.centre))
    known = torch.where(table.radius > 0, int(Status.INACCURATE), int(Status.UNDECIDED))
    status, upper = known, width_bounds(space)
    empty = torch.tensor([answer.ball.upper < 0 for answer in regions])
    gone = empty[:, None] | empty
    status[gone], upper[gone] = int(Status.INFEASIBLE), 0.0
    for (i, j), answer in facets.items():
        ball = answer.ball
        status[i, j] = status[j, i] = int(ball.status)
        # a ball of any size (+inf) fits in no box, so the smaller one holds
        upper[i, j] = upper[j, i] = min(ball.upper, float(upper[i, j]))
        if ball.lower > 0:
            pair = torch.tensor([i]), torch.tensor([j])
            table.add(*pair, torch.tensor([ball.lower], dtype=torch.float64), ball.centre[None])
    bias = head.bias.cpu()
    same = (pair_norms(head).cpu() == 0) & (bias[:, None] == bias)
    status[same], upper[same] = int(Status.DUPLICATE), none
    adjacency = table.radius > 0
    pairs = adjacency.triu(1).nonzero()
    return Partition(
        nonempty=nonempty,
        adjacency=adjacency,
        facet_radius=torch.where(adjacency, table.radius, none),
        facet_upper=upper,
        facet_pairs=pairs,
        facet_centre=table.take(pairs),
        chebyshev_centre=centre,
        chebyshev_radius=torch.tensor(
            [answer.ball.lower if answer.ball.lower > 0 else none for answer in regions],
            dtype=torch.float64,
        ),
        chebyshev_upper=torch.tensor(
            [answer.ball.upper for answer in regions], dtype=torch.float64
        ),
        bounded=bounded_status == Status.CONVERGED,
        redundant=(status == Status.INFEASIBLE) & nonempty[:, None],
        weight_angle=weight_angles(head).cpu(),
        region_status=region_status,
        bounded_status=bounded_status,
        status=status,
        witnessed=witnessed,
        num_programs=sum(a.ball.programs for a in [*regions, *facets.values()]),
    )
