"""Partition of feature space by a head: regions, their sizes, and neighbouring classes.

Each region and each facet is one task of a few linear programs; tasks run in this process or in
several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from joblib import Parallel, delayed
from torch import Tensor

from fsboundary.core.checks import check_head, check_instance, check_integer, check_integer_tensor
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results.partition import Partition
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.norms import pair_norms
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.facets import width_bounds
from fsboundary.modes import in_standard_modes
from fsboundary.progress import tqdm
from fsboundary.regions.angles import weight_angles
from fsboundary.regions.journal import Task, TaskResult, TaskSolver, open_journal
from fsboundary.regions.limits import common_limits
from fsboundary.regions.witnesses import FacetTable, find_witnesses


def solve_all(
    solver: TaskSolver, tasks: list[Task], n_jobs: int
) -> Iterator[tuple[Task, TaskResult]]:
    """Yield tasks and their results as they are finished.

    Parameters
    ----------
    solver : TaskSolver
    tasks : list of Task
    n_jobs : int
        Number of processes, as in joblib: -1 for one per core.
    """
    if n_jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, solver.solve(task)
        return
    work = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    yield from work(delayed(_with_task)(solver, task) for task in tasks)


def _with_task(solver: TaskSolver, task: Task) -> tuple[Task, TaskResult]:
    return task, solver.solve(task)


FEW_CLASSES = 200
"""Number of classes up to which "auto" runs a linear program for every pair."""

SAMPLED = 2000
"""Maximum number of programs that "auto" runs with more classes, for pairs drawn at random, those
without a witness first."""


@in_standard_modes
def partition(
    head: LinearHead,
    within: Domain | None = None,
    *,
    pairs: Literal["auto"] | Int[TensorOrArray, "P 2"] = "auto",
    n_jobs: int = 1,
    resume: str | os.PathLike[str] | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Partition:
    """Return regions and facets of all classes, with float64 certificates.

    Linear programs (HiGHS) propose centres and multipliers; reported is only what these prove when
    evaluated in float64, minus their rounding (design.md, section 1, "Facet"). A facet is a common
    border of dimension d - 1, including the domain's faces: regions whose common border has a
    lower dimension are not neighbours. Features whose two limits agree do not count as dimensions.

    Parameters
    ----------
    head : LinearHead
    within : Domain, optional
        Limits in addition to those of the head's domain: ``Domain.box(*bank.range())`` is the
        observed box, in which every radius is finite.
    pairs : "auto" or integer Tensor or array (P, 2)
        Pairs of classes whose linear program is run. "auto": all, up to 200 classes. With more
        classes, or with a tensor, points on ties (witnesses) prove facets of all the other pairs
        where they can, and pairs without one stay UNDECIDED; "auto" then runs the programs of at
        most 2,000 pairs, drawn at random: those without a witness first, then others.
    n_jobs : int
        Number of processes, as in joblib; -1 for one per core.
    resume : path, optional
        A file for finished programs. A run with the same head and domain resumes from it, also
        with other `pairs`; a program half written when a run was stopped is run again. The file
        contains proofs, which are checked again, and one run at a time may use it.
    seed : int
        Seed of the pairs drawn.
    show_progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Partition

    Raises
    ------
    ArgumentError
        Wrong types or widths, a domain that `within` does not meet or that is a single point,
        classes out of range, or a file of another head or domain.
    DataError
        A damaged file, a line that belongs to another head or does not prove what it states, a file
        that another run writes to, or one that cannot be written.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> box = fsb.Domain.box(torch.zeros(3), torch.ones(3))
    >>> part = fsb.partition(head, box)
    >>> part.adjacency.int().tolist()
    [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    """
    check_head(head)
    lower, upper = common_limits(head, within)
    wanted = None
    if not (isinstance(pairs, str) and pairs == "auto"):
        found = check_integer_tensor(
            "pairs",
            pairs,
            ("P", 2),
            fix="pass one pair of two classes per row, as torch.tensor([[0, 1]])",
            noun="classes",
            within=range(head.num_classes),
            distinct=True,
            also='"auto"',
        )
        wanted = found.cpu().sort(dim=1).values.unique(dim=0)
    if check_integer("n_jobs", n_jobs, None, fix="pass 1, or -1") == 0:
        raise ArgumentError("n_jobs", "0", "an integer other than 0", "pass 1, or -1")
    check_integer("seed", seed, None)
    fix = 'pass, for example, "partition.jsonl"'
    kinds = (str, os.PathLike, type(None))
    name = check_instance("resume", resume, kinds, "a path or None", fix)
    file = None if name is None else Path(name)
    space = Arrangement.of(head, lower, upper)
    solver, table = TaskSolver(space), FacetTable(space)
    progress = tqdm(total=head.num_classes, unit="program", disable=not show_progress)
    with open_journal(file, solver) as journal, progress as bar:

        def run(tasks: list[Task]) -> list[TaskResult]:
            bar.total = bar.n + len(tasks)
            new = [task for task in tasks if task not in journal.done]
            bar.update(len(tasks) - len(new))
            for task, result in solve_all(solver, new, n_jobs):
                journal.add(task, result)
                bar.update()
            return [journal.done[task] for task in tasks]

        regions = run([("region", i, i) for i in range(head.num_classes)])
        selected = _select_pairs(space, regions, wanted, table, seed)
        witnessed = table.radius > 0
        facets = run([("facet", i, j) for i, j in selected])
    result = _assemble(
        head, space, regions, dict(zip(selected, facets, strict=True)), table, witnessed
    )
    return result.to(head.device)


def _select_pairs(
    space: Arrangement,
    regions: list[TaskResult],
    wanted: Tensor | None,
    table: FacetTable,
    seed: int,
) -> list[tuple[int, int]]:
    """Return the pairs whose linear program is run; add witnesses of others to `table`."""
    empty = _empty_regions(regions)
    if wanted is None and len(regions) <= FEW_CLASSES:
        wanted = torch.combinations(torch.arange(len(regions)))
    else:
        _add_witnesses(space, regions, table)
        if wanted is None:
            wanted = _sample_pairs(table.radius, empty, seed)
    # an empty region has no facet
    wanted = wanted[~empty[wanted].any(dim=1)]
    return [(int(i), int(j)) for i, j in wanted.tolist()]


def _empty_regions(regions: list[TaskResult]) -> Tensor:
    """Return which regions (K,) are proved empty."""
    return torch.tensor([region.ball.upper < 0 for region in regions])


def _add_witnesses(space: Arrangement, regions: list[TaskResult], table: FacetTable) -> None:
    """Add the witnesses that are found from the centres of the regions to `table`."""
    centres = np.full((len(regions), space.width), np.nan)
    for i, region in enumerate(regions):
        if region.ball.lower > 0:
            centres[i] = region.ball.centre
    find_witnesses(space, centres, table)


def _sample_pairs(radius: Tensor, empty: Tensor, seed: int) -> Tensor:
    """Return the pairs (P, 2) whose programs "auto" runs, ascending."""
    pairs = torch.combinations(torch.arange(len(radius)))
    pairs = pairs[~empty[pairs].any(dim=1)]
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    proved = radius[pairs[:, 0], pairs[:, 1]] > 0
    sample: Tensor = pairs[proved.long().argsort(stable=True)[:SAMPLED]].unique(dim=0)
    return sample


def _assemble(
    head: LinearHead,
    space: Arrangement,
    regions: list[TaskResult],
    facets: dict[tuple[int, int], TaskResult],
    table: FacetTable,
    witnessed: Tensor,
) -> Partition:
    """Return the partition from the results of all tasks and the witnesses in `table`."""
    region_fields = _region_fields(space, regions)
    status, upper = _facet_bounds(head, space, regions, facets, table)
    _add_centres(facets, table)
    adjacency = table.radius > 0
    pairs = adjacency.triu(1).nonzero()
    return Partition(
        **region_fields,
        adjacency=adjacency,
        facet_radius=torch.where(adjacency, table.radius, torch.nan),
        facet_upper=upper,
        facet_pairs=pairs,
        facet_centre=table.take(pairs),
        redundant=(status == Status.INFEASIBLE) & region_fields["nonempty"][:, None],
        weight_angle=weight_angles(head).cpu(),
        status=status,
        witnessed=witnessed,
        num_programs=sum(result.ball.num_programs for result in [*regions, *facets.values()]),
    )


def _region_fields(space: Arrangement, regions: list[TaskResult]) -> dict[str, Tensor]:
    """Return the fields of a Partition that describe its regions."""
    balls = [region.ball for region in regions]
    nonempty = torch.tensor([ball.lower > 0 for ball in balls])
    radius = [ball.lower if ball.lower > 0 else torch.nan for ball in balls]
    centre = torch.full((len(balls), len(space.point)), torch.nan, dtype=torch.float64)
    for i in nonempty.nonzero()[:, 0].tolist():
        centre[i] = torch.from_numpy(space.lift(balls[i].centre))
    bounded_status = torch.tensor([int(region.bounded) for region in regions])
    return {
        "nonempty": nonempty,
        "chebyshev_centre": centre,
        "chebyshev_radius": torch.tensor(radius, dtype=torch.float64),
        "chebyshev_upper": torch.tensor([ball.upper for ball in balls], dtype=torch.float64),
        "region_status": torch.tensor([int(ball.status) for ball in balls]),
        "bounded": bounded_status == Status.CONVERGED,
        "bounded_status": bounded_status,
    }


def _facet_bounds(
    head: LinearHead,
    space: Arrangement,
    regions: list[TaskResult],
    facets: dict[tuple[int, int], TaskResult],
    table: FacetTable,
) -> tuple[Tensor, Tensor]:
    """Return the status (K,K) of all pairs and the upper bounds (K,K) of their facets' radii."""
    status = torch.where(table.radius > 0, int(Status.INACCURATE), int(Status.UNDECIDED))
    upper = width_bounds(space)
    empty = _empty_regions(regions)
    either_empty = empty[:, None] | empty
    status[either_empty], upper[either_empty] = int(Status.INFEASIBLE), 0.0
    for (i, j), facet in facets.items():
        status[i, j] = status[j, i] = int(facet.ball.status)
        # a ball of any size (+inf) fits in no box, so the smaller bound holds
        upper[i, j] = upper[j, i] = min(facet.ball.upper, float(upper[i, j]))
    bias = head._bias.cpu()
    same = (pair_norms(head).cpu() == 0) & (bias[:, None] == bias)
    status[same], upper[same] = int(Status.DUPLICATE), torch.nan
    return status, upper


def _add_centres(facets: dict[tuple[int, int], TaskResult], table: FacetTable) -> None:
    """Add the certified centres of `facets` to `table`."""
    for (i, j), facet in facets.items():
        if facet.ball.lower > 0:
            radius = torch.tensor([facet.ball.lower], dtype=torch.float64)
            table.add(torch.tensor([i]), torch.tensor([j]), radius, facet.ball.centre[None])
