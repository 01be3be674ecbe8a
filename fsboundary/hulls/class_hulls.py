"""Classes of a bank as point sets, and projections onto the hulls of many small classes at once."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.checks import labels_of
from fsboundary.builtin.hull_solvers.active_set import ActiveSet
from fsboundary.geometry.batching import MEMORY_BYTES, chunk_rows, chunks
from fsboundary.geometry.hulls.row_sets import SmallSets
from fsboundary.plugins.grading.hulls import project_small_and_grade
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.threads import in_one_thread, map_in_threads

SMALL_CLASS = 64
"""Number of generators up to which all classes are projected on together: a class on its own costs
some two hundred operations, whatever its size."""

_class_members: weakref.WeakKeyDictionary[FeatureBank, ClassMembers] = weakref.WeakKeyDictionary()
_class_generators: weakref.WeakKeyDictionary[FeatureBank, dict[int, FeatureBank]] = (
    weakref.WeakKeyDictionary()
)


def class_members(bank: FeatureBank) -> ClassMembers:
    """Return the rows of each class of `bank`, or raise if it has no labels; cached."""
    if bank not in _class_members:
        _class_members[bank] = ClassMembers(labels_of(bank).cpu())
    return _class_members[bank]


@final
class ClassMembers:
    """The rows of a bank sorted by class.

    Attributes
    ----------
    classes : Tensor (C,)
        Classes, ascending; rows without a label (-1) are of no class.
    count : Tensor (C,)
        Number of rows of each.
    """

    def __init__(self, labels: Tensor) -> None:
        order = labels.argsort(stable=True)
        self._rows = order[int((labels < 0).sum()) :]
        self.classes, self.count = labels[self._rows].unique_consecutive(return_counts=True)
        self._begin = self.count.cumsum(dim=0) - self.count

    def position(self, classes: Tensor) -> Tensor:
        """Return the positions of `classes`, which must exist."""
        found: Tensor = torch.searchsorted(self.classes, classes.contiguous())
        return found

    def at(self, position: int) -> Tensor:
        """Return the rows of the class at `position`, ascending."""
        begin = int(self._begin[position])
        rows: Tensor = self._rows[begin : begin + int(self.count[position])]
        return rows

    def table(self, positions: Tensor) -> Tensor:
        """Return the rows (P,S) of the classes at `positions` (P,), the first one as padding."""
        count = self.count[positions]
        column = torch.arange(int(count.max()))
        inside = torch.where(column < count[:, None], column, 0)
        rows: Tensor = self._rows[self._begin[positions][:, None] + inside]
        return rows


def class_generators(bank: FeatureBank, k: int) -> tuple[FeatureBank, Tensor]:
    """Return the generators of class `k`, cached as they are a copy, and their rows in `bank`."""
    cache, table = _class_generators.setdefault(bank, {}), class_members(bank)
    rows = table.at(int(table.position(torch.tensor([k]))))
    if k not in cache:
        cache[k] = bank.select(rows)
    return cache[k], rows


def count_generators(
    bank: FeatureBank, classes: Tensor, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return how many rows of `bank` the class of each row has, and how many of these are excluded.

    Parameters
    ----------
    bank : FeatureBank
    classes : Tensor (B,)
        Classes, on the CPU; -1, or one that no row of the bank has, has no generator.
    exclude : Tensor (B, E), optional
        Rows of the bank, on the CPU, -1 as padding.
    """
    table = class_members(bank)
    at = table.position(classes).clamp_max(max(len(table.classes) - 1, 0))
    count, excluded = torch.zeros_like(classes), torch.zeros_like(classes)
    if len(table.classes):
        count = torch.where(table.classes[at] == classes, table.count[at], 0)
    if exclude is not None:
        of_class = labels_of(bank).cpu()[exclude.clamp_min(0)] == classes[:, None]
        excluded = ((exclude >= 0) & of_class).sum(dim=1)
    return count, excluded


def is_small(bank: FeatureBank, positions: Tensor, solver: HullSolver) -> Tensor:
    """Return which of the classes at `positions` `solver` projects on together with others."""
    few: Tensor = class_members(bank).count[positions] <= SMALL_CLASS
    return few & isinstance(solver, ActiveSet)


def project_small_classes(
    bank: FeatureBank,
    z: Tensor,
    pairs: tuple[Tensor, Tensor],
    solver: HullSolver,
    names: Collection[str],
    *,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield numbers of pairs (p,), and the fields of their graded projections.

    Memory is used for the generators of some classes (32 MiB), for one chunk of pairs per thread,
    and for the fields of all pairs of these classes.

    Parameters
    ----------
    bank : FeatureBank
    z : Tensor (B, d), float64
    pairs : Tensor (P,), Tensor (P,)
        Rows of `z`, and the positions of small classes, on the CPU.
    solver : ActiveSet
    names : collection of str
        Fields of a HullProjection that are kept.
    exclude : Tensor (B, E), optional
        Rows of the bank that do not count for a row of `z`, -1 as padding; at least one of each
        class counts.
    tolerance, max_steps
        As for :func:`fsboundary.hull_projection`.
    """
    row, position = pairs
    if len(row) == 0:
        return
    assert isinstance(solver, ActiveSet)  # as is_small decided
    table = class_members(bank)
    # classes of similar size share a chunk, in which the largest counts
    present = position.unique()
    present = present[table.count[present].argsort(stable=True)]
    rank = torch.empty_like(table.count)
    rank[present] = torch.arange(len(present))
    order = rank[position].argsort(stable=True)
    size = table.count[present].cumsum(dim=0) * bank.num_features * 8
    # pairs of the classes that are read together
    share = (size - 1) // MEMORY_BYTES
    counts = share[rank[position[order]]].unique_consecutive(return_counts=True)[1]
    for some in order.split(counts.tolist()):
        yield from _project_together(
            bank, z, some, (row[some], position[some]), solver, names, exclude, tolerance, max_steps
        )


@in_one_thread
def _project_together(
    bank: FeatureBank,
    z: Tensor,
    numbers: Tensor,
    pairs: tuple[Tensor, Tensor],
    solver: ActiveSet,
    names: Collection[str],
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return what :func:`project_small_classes` yields, for pairs of classes read at once."""
    table, (row, position) = class_members(bank), pairs
    needed = table.table(position.unique()).unique()
    points = bank.take(needed).to(z.device)

    def project(part: slice) -> tuple[Tensor, dict[str, Any]]:
        of_bank = table.table(position[part])
        values = points[torch.searchsorted(needed, of_bank).to(z.device)]
        index, of_bank = row[part].to(z.device), of_bank.to(z.device)
        skip = None if exclude is None else _slots(exclude[index], of_bank)
        sets = SmallSets(values, table.count[position[part]].to(z.device), skip)
        graded = project_small_and_grade(
            solver, sets, z[index], tolerance=tolerance, max_steps=max_steps
        ).to_dict()
        support = graded["support"]
        rows = of_bank.gather(1, support.clamp_min(0))
        graded["support"] = torch.where(support >= 0, rows, -1)
        return numbers[part], {name: graded[name] for name in names}

    width = int(table.count[position].max()) * bank.num_features
    return map_in_threads(z.device, project, list(chunks(len(row), chunk_rows(width))))


def _slots(exclude: Tensor, of_bank: Tensor) -> Tensor:
    """Return rows of the bank `exclude` (P,E) as columns of `of_bank` (P,S); -1 for others."""
    same = exclude[:, :, None] == of_bank[:, None, :]
    # the first: padding repeats it
    return torch.where(same.any(dim=2), same.to(torch.uint8).argmax(dim=2), -1)
