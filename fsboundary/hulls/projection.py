"""Projections of rows onto the convex hull of a bank, or of each of its classes.

A projection shows whether a row is inside, how far outside it is, and which generators support the
nearest point. Rows of a bank that hold the same point are its copies: they are left out together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank_features
from fsboundary.banks.checks import check_classes, labels_of
from fsboundary.core.checks import check_integer_tensor, check_limits, check_single_label
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FeatureBatch, HullProjection
from fsboundary.core.rows import TensorOrArray, scatter_rows, write_rows
from fsboundary.core.status import Status
from fsboundary.hulls.class_hulls import (
    class_generators,
    class_members,
    count_generators,
    is_small,
    project_small_classes,
)
from fsboundary.hulls.copies import copies_of
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.grading.hulls import project_and_grade
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls
from fsboundary.progress import tqdm

HULL_RTOL = 1e-6
MAX_STEPS = 200
"""Default limit of passes over the bank; real features need fewer than ten."""

_ROWS = 2**14
"""Maximum number of queries that a solver gets at once, between two updates of the progress bar;
similar queries speed each other up."""

_PADDING = {"support": -1, "weights": 0}


@in_standard_modes
def hull_projection(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    labels: Int[TensorOrArray, " B"] | None = None,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> HullProjection:
    """Return the nearest points of the hull of `bank`, with float64 certificates.

    Parameters
    ----------
    bank : FeatureBank
        The generators.
    features : Tensor or array (B, d) or FeatureBatch
        Any float dtype; computed in float64. A batch must be of the bank's own head, extractor
        and layer, if the bank records them; a tensor needs only the same width.
    labels : Tensor or array (B,), optional
        Class of the hull on which each row is projected; by default the hull of all generators. A
        row with -1, such as the predicted class of a NaN row, has no hull and is UNDECIDED.
    leave_out : Tensor or array (B,), optional
        A bank row that does not count as a generator for this row, together with all its exact
        copies; -1 for none.
    solver : str or HullSolver
    tolerance : float, optional
        Relative tolerance of the distance, default 1e-6. Always allowed is 1e-9 of the bank's RMS
        norm about its mean, or of the support's mean distance from the row, by weight, where that
        is less.
    max_steps : int, optional
        Passes over the bank, default 200.
    show_progress : bool

    Returns
    -------
    HullProjection
        ``support`` contains row numbers of `bank`, also with `labels`. NaN with NOT_FINITE,
        MAX_STEPS or INACCURATE where there is no certified answer; ``lower_bound`` holds anyway.

    Raises
    ------
    ArgumentError
        Wrong types, shapes, classes or rows, or a row that leaves no generator, before any work.
    HeadMismatchError
        A batch and a bank whose fingerprints differ.
    PluginError
        The solver raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> hull = fsb.hull_projection(bank, torch.tensor([[0.5, 0.5], [3.0, -1.0]]))
    >>> hull.membership.tolist(), hull.distance.round(decimals=4).tolist()
    ([1, -1], [0.0, 1.4142])
    """
    z = check_bank_features(bank, features)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    finite = torch.isfinite(z).all(dim=1)
    fields = unsolved_hulls(z)
    fields["status"][~finite] = int(Status.NOT_FINITE)
    wanted = None if labels is None else _wanted_classes(bank, labels, z)
    exclude = _exclusions(bank, leave_out, z)
    _require_generators(bank, exclude, wanted, finite)
    small, groups = _groups(bank, wanted, finite, plugin)
    with tqdm(total=int(finite.sum()), unit="row", disable=not show_progress) as bar:
        for numbers, graded in project_small_classes(
            bank, z, small, plugin, fields, exclude=exclude, tolerance=rtol, max_steps=limit
        ):
            rows = small[0][numbers].to(z.device)
            write_rows(fields, rows, graded, padding=_PADDING)
            left = _unconverged(graded)
            groups += _class_groups(bank, small[1][numbers][left.cpu()], rows[left])
            bar.update(len(rows) - len(left))
        for group in groups:
            for index, graded in _project_group(bank, z, group, plugin, exclude, rtol, limit):
                write_rows(fields, index, graded, padding=_PADDING)
                bar.update(len(index))
    return HullProjection(**fields)


@in_standard_modes
def class_hull_distances(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    leave_out: Int[TensorOrArray, " B"] | None = None,
) -> Tensor:
    """Return the distance to the hull of each class (B,K), feature units, float64.

    Column k belongs to the k-th smallest label of `bank`; :func:`nearest_hulls` compares the
    columns. NaN where there is no certified answer. Classes of at most 64 points are projected on
    together, in the memory of the points of some of them, at most 32 MiB, and of one chunk of
    projections.

    Parameters
    ----------
    bank : FeatureBank
        A bank with labels.
    features : Tensor or array (B, d) or FeatureBatch
        As in :func:`hull_projection`.
    leave_out : Tensor or array (B,), optional
        A bank row that does not count as a generator for this row, together with all its exact
        copies; -1 for none. The distance to a class without another generator is +inf.

    Raises
    ------
    ArgumentError
        The bank has no labels, or wrong types or shapes.
    HeadMismatchError
        A batch and a bank whose fingerprints differ.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.class_hull_distances(bank, torch.tensor([[0.5, 0.5], [6.0, 4.0]]))
    >>> found.round(decimals=4).tolist()
    [[0.0, 6.364], [5.6569, 1.0]]
    """
    distance: Tensor = distances_by_class(bank, features, leave_out)["distance"]
    return distance


def distances_by_class(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    *,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> dict[str, Tensor]:
    """Return `distance`, `lower_bound` and `membership` of the hull of each class (B,K) by name.

    And `width` (), the largest number of generators that support a projection. Only these numbers
    of each projection are kept, so memory does not grow with rows times classes times features.
    A class whose generators are all left out for a row has no hull: its distance is +inf.
    """
    z = check_bank_features(bank, features)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    finite = torch.isfinite(z).all(dim=1)
    table = class_members(bank)
    shape = (len(z), len(table.classes))
    exclude = _exclusions(bank, leave_out, z)
    empty = torch.zeros(shape, dtype=torch.bool, device=z.device)
    if exclude is not None:
        empty = _without_hull(bank, exclude, shape) & finite[:, None]
    fields = {
        "distance": torch.where(empty, torch.inf, torch.nan).double(),
        "lower_bound": torch.where(empty, torch.inf, 0.0).double(),
        "membership": -empty.long(),
    }
    todo = finite[:, None] & ~empty
    width, few = 1, is_small(bank, torch.arange(shape[1]), plugin)
    index, column = (todo.cpu() & few).nonzero().unbind(1)
    pairs = index, column
    groups: list[tuple[int, _Group]] = []
    for k in (~few).nonzero()[:, 0].tolist():
        generators, bank_rows = class_generators(bank, int(table.classes[k]))
        groups.append((k, (generators, bank_rows, todo[:, k].nonzero()[:, 0])))
    with tqdm(total=int(todo.sum()), unit="row", disable=not show_progress) as bar:
        for numbers, graded in project_small_classes(
            bank,
            z,
            pairs,
            plugin,
            [*fields, "status", "support"],
            exclude=exclude,
            tolerance=rtol,
            max_steps=limit,
        ):
            index, column = (part[numbers].to(z.device) for part in pairs)
            for name, value in fields.items():
                value[index, column] = graded[name]
            width, left = max(width, graded["support"].shape[1]), _unconverged(graded)
            some = pairs[1][numbers][left.cpu()]
            again = _class_groups(bank, some, index[left])
            groups += zip(some.unique().tolist(), again, strict=True)
            bar.update(len(numbers) - len(left))
        for k, group in groups:
            for index, graded in _project_group(bank, z, group, plugin, exclude, rtol, limit):
                for name, value in fields.items():
                    value[index, k] = graded[name]
                width = max(width, graded["support"].shape[1])
                bar.update(len(index))
    return fields | {"width": torch.tensor(width)}


def _without_hull(bank: FeatureBank, exclude: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return for which rows and classes (B,C) `exclude` (B,E) leaves no generator."""
    table, labels = class_members(bank), labels_of(bank).cpu()
    out = exclude.cpu()
    of_row = torch.where(out >= 0, labels[out.clamp_min(0)], -1)
    row, entry = (of_row >= 0).nonzero().unbind(1)
    left_out = torch.zeros(shape, dtype=torch.int64)
    one = torch.ones_like(row)
    left_out.index_put_((row, table.position(of_row[row, entry])), one, accumulate=True)
    empty: Tensor = left_out >= table.count
    return empty.to(exclude.device)


_Group = tuple[FeatureBank, Tensor | None, Tensor]
"""The generators of a hull, their rows in the bank or None for all, and rows of features."""


def _unconverged(graded: dict[str, Tensor]) -> Tensor:
    """Return the rows without a certificate.

    Among all points of a class float64 may lose what it keeps among the few that a row needs.
    """
    return (graded["status"] != Status.CONVERGED).nonzero()[:, 0]


def _class_groups(bank: FeatureBank, positions: Tensor, rows: Tensor) -> list[_Group]:
    """Return the groups of `rows` (P,) by the class at `positions` (P,), ascending."""
    table, positions = class_members(bank), positions.cpu()
    return [
        (*class_generators(bank, int(table.classes[k])), rows[(positions == k).to(rows.device)])
        for k in positions.unique().tolist()
    ]


def _project_group(
    bank: FeatureBank,
    z: Tensor,
    group: _Group,
    solver: HullSolver,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield rows of `z` and the graded fields of their projections on the hull of one group."""
    generators, bank_rows, rows = group
    for index in rows.split(_ROWS):
        skip = None
        if exclude is not None:
            skip = _to_generators(exclude[index], bank_rows, len(bank))
        graded = project_and_grade(
            solver, generators, z[index], exclude=skip, tolerance=tolerance, max_steps=max_steps
        ).to_dict()
        graded["support"] = _to_bank_rows(graded["support"], bank_rows)
        yield index, graded


def _wanted_classes(bank: FeatureBank, labels: object, z: Tensor) -> Tensor:
    """Return the class (B,) of the hull of each row, on the CPU; -1 for none."""
    fix = "pass one class per row of features"
    labels = check_single_label("labels", labels)
    found = check_integer_tensor("labels", labels, (len(z),), fix=fix, noun="classes").cpu()
    if bool((found != -1).any()):
        check_classes("labels", found[found != -1].unique(), labels_of(bank).cpu())
    return found


def _groups(
    bank: FeatureBank, wanted: Tensor | None, finite: Tensor, solver: HullSolver
) -> tuple[tuple[Tensor, Tensor], list[_Group]]:
    """Return the pairs of rows and small classes, and the groups of rows of all other hulls."""
    if wanted is None:
        none = torch.arange(0)
        return (none, none), [(bank, None, finite.nonzero()[:, 0])]
    rows = ((wanted != -1) & finite.cpu()).nonzero()[:, 0]
    positions = class_members(bank).position(wanted[rows])
    few = is_small(bank, positions, solver)
    others = _class_groups(bank, positions[~few], rows[~few].to(finite.device))
    return (rows[few], positions[few]), others


def _exclusions(bank: FeatureBank, leave_out: object | None, z: Tensor) -> Tensor | None:
    """Return the bank rows that do not count for each row of `z`, copies included, (B,E)."""
    if leave_out is None:
        return None
    out = check_integer_tensor(
        "leave_out",
        leave_out,
        (len(z),),
        fix="pass one row of the bank per row of features",
        noun="rows",
        within=range(-1, len(bank)),
        range_fix="count the bank's rows from 0; -1 leaves none out",
    )
    return copies_of(bank).of(out.cpu()).to(z.device)


def _to_bank_rows(generators: Tensor, bank_rows: Tensor | None) -> Tensor:
    """Return rows of a hull's own generators as rows of the bank; -1 stays."""
    if bank_rows is None:
        return generators
    bank_rows = bank_rows.to(generators.device)
    return torch.where(generators >= 0, bank_rows[generators.clamp_min(0)], -1)


def _to_generators(rows: Tensor, bank_rows: Tensor | None, total: int) -> Tensor:
    """Return rows of the bank as rows of a hull's own generators; -1 for rows not among them."""
    if bank_rows is None:
        return rows
    # -1 reads the last entry, which stays -1
    index = torch.arange(len(bank_rows), device=rows.device)
    return scatter_rows(index, bank_rows.to(rows.device), total + 1, -1)[rows]


def _require_generators(
    bank: FeatureBank, exclude: Tensor | None, wanted: Tensor | None, finite: Tensor
) -> None:
    """Raise ArgumentError if `exclude` (B,E) leaves a row no generator of its hull."""
    if exclude is None:
        return
    out, usable = exclude.cpu(), finite.cpu()
    if wanted is None:
        count = torch.full_like(usable, len(bank), dtype=torch.int64)
        excluded = (out >= 0).sum(dim=1)
    else:
        usable = usable & (wanted != -1)
        count, excluded = count_generators(bank, wanted, out)
    none = (usable & (excluded >= count)).nonzero()[:, 0]
    if len(none):
        row = int(none[0])
        raise ArgumentError(
            "leave_out",
            f"all {int(count[row])} generators of the hull of row {row}",
            "at least one generator left",
            "drop such rows: a single example has no other to be compared with",
        )
