"""Projections of rows onto the convex hull of a bank, or of each of its classes.

A projection shows whether a row is inside, how far outside it is, and which generators support the
nearest point. Rows of a bank that hold the same point are its copies: they are left out together.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank_features
from fsboundary.banks.checks import labelled_classes, labels_of
from fsboundary.core.checks import check_integer_tensor, check_limits, check_single_label
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FeatureBatch, HullProjection
from fsboundary.core.rows import TensorOrArray, scatter_rows, write_rows
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.grading.hulls import project_and_grade
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls

_copies: weakref.WeakKeyDictionary[FeatureBank, Copies] = weakref.WeakKeyDictionary()


def copies_of(bank: FeatureBank) -> Copies:
    """Return which rows of `bank` hold the same point; computed once, in one pass, and cached."""
    if bank not in _copies:
        _copies[bank] = Copies(bank)
    return _copies[bank]


@final
class Copies:
    """The rows of a bank sorted by their points, and where each point begins."""

    def __init__(self, bank: FeatureBank) -> None:
        digests = bank.digests()
        order = digests[:, 1].argsort(stable=True)
        self._rows = order[digests[order, 0].argsort(stable=True)]
        digests = digests[self._rows]
        first = torch.ones(len(digests), dtype=torch.bool)
        first[1:] = (digests[1:] != digests[:-1]).any(dim=1)
        self._begin = torch.cat([first.nonzero()[:, 0], torch.tensor([len(first)])])
        self._point = torch.empty_like(self._rows)
        self._point[self._rows] = first.cumsum(dim=0) - 1

    @property
    def first(self) -> Tensor:
        """The lowest row (n,) that holds the same point as each row."""
        return self._rows[self._begin[self._point]]

    @property
    def count(self) -> Tensor:
        """The number of rows (n,) that hold the same point as each row, itself included."""
        return self._begin.diff()[self._point]

    def of(self, rows: Tensor) -> Tensor:
        """Return the rows that hold the same points as `rows` (B,), themselves included, (B,E).

        Padded with -1; a row of -1 has no copies.
        """
        point = self._point[rows.clamp_min(0)]
        counts = torch.where(rows >= 0, self._begin[point + 1] - self._begin[point], 0)
        column = torch.arange(max(counts.tolist(), default=0) or 1)
        index = (self._begin[point, None] + column).clamp_max(len(self._rows) - 1)
        return torch.where(column < counts[:, None], self._rows[index], -1)


HULL_RTOL = 1e-6
MAX_STEPS = 200
"""Default limit of passes over the bank; real features need fewer than ten."""

_ROWS = 2**14
"""Maximum number of queries that a solver gets at once, between two updates of the progress bar;
similar queries speed each other up."""

_class_generators: weakref.WeakKeyDictionary[FeatureBank, dict[int, tuple[FeatureBank, Tensor]]] = (
    weakref.WeakKeyDictionary()
)


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
    """
    z = check_bank_features(bank, features)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    finite = torch.isfinite(z).all(dim=1)
    fields = unsolved_hulls(z)
    fields["status"][~finite] = int(Status.NOT_FINITE)
    groups = _groups(bank, labels, finite)
    exclude = _exclusions(bank, leave_out, z)
    skips = [_local_exclusions(exclude, *group, len(bank)) for group in groups]
    with tqdm(total=int(finite.sum()), unit="row", disable=not show_progress) as bar:
        for (generators, bank_rows, rows), skip in zip(groups, skips, strict=True):
            for index in torch.arange(len(rows), device=z.device).split(_ROWS):
                graded = project_and_grade(
                    plugin,
                    generators,
                    z[rows[index]],
                    exclude=None if skip is None else skip[index],
                    tolerance=rtol,
                    max_steps=limit,
                ).to_dict()
                graded["support"] = _to_bank_rows(graded["support"], bank_rows)
                write_rows(fields, rows[index], graded, padding={"support": -1, "weights": 0})
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
    columns. NaN where there is no certified answer.

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
    """
    by_class = project_by_class(bank, features, leave_out)
    return torch.stack([projection.distance for _, projection in by_class], dim=1)


def project_by_class(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    **options: Any,
) -> Iterator[tuple[int, HullProjection]]:
    """Yield each class, ascending, and the projections of all rows on its hull.

    A class whose generators are all left out for a row has no hull: the distance is +inf, the
    status INFEASIBLE.
    """
    z = check_bank_features(bank, features)
    options["solver"] = create("hull_solver", options.get("solver", "active_set"))
    exclude = _exclusions(bank, leave_out, z)
    finite = torch.isfinite(z).all(dim=1)
    for k in labelled_classes(bank):
        empty = torch.zeros_like(finite)
        if exclude is not None:
            generators, bank_rows = class_generators(bank, k)
            skip = _to_generators(exclude, bank_rows, len(bank))
            empty = finite & ((skip >= 0).sum(dim=1) >= len(generators))
        labels = torch.where(empty, -1, k)
        found = hull_projection(bank, z, labels=labels, leave_out=leave_out, **options)
        yield k, _without_hull(found, empty)


def _without_hull(projection: HullProjection, rows: Tensor) -> HullProjection:
    """Return `projection` with the distance +inf at `rows`, a mask (B,) of unsolved rows."""
    if not bool(rows.any()):
        return projection
    fields = projection.to_dict()
    for name, value in (("distance", torch.inf), ("lower_bound", torch.inf), ("gap", 0.0)):
        fields[name] = torch.where(rows, value, fields[name])
    fields["membership"] = torch.where(rows, -1, fields["membership"])
    fields["status"] = torch.where(rows, int(Status.INFEASIBLE), fields["status"])
    return HullProjection(**fields)


def _groups(
    bank: FeatureBank, labels: object | None, finite: Tensor
) -> list[tuple[FeatureBank, Tensor | None, Tensor]]:
    """Return (generators, their rows in `bank` or None for all, rows of features) per hull."""
    if labels is None:
        return [(bank, None, finite.nonzero()[:, 0])]
    fix = "pass one class per row of features"
    labels = check_single_label("labels", labels)
    found = check_integer_tensor("labels", labels, (len(finite),), fix=fix, noun="classes")
    wanted = found.to(finite.device)
    labels_of(bank)
    return [
        (*class_generators(bank, k), ((wanted == k) & finite).nonzero()[:, 0])
        for k in wanted[wanted != -1].unique().tolist()
    ]


def class_generators(bank: FeatureBank, k: int) -> tuple[FeatureBank, Tensor]:
    """Return the generators of class `k` and their rows in `bank`; cached, as they are a copy."""
    cache = _class_generators.setdefault(bank, {})
    if k not in cache:
        cache[k] = bank.subset(labels=k), (labels_of(bank) == k).nonzero()[:, 0]
    return cache[k]


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


def _local_exclusions(
    exclude: Tensor | None,
    generators: FeatureBank,
    bank_rows: Tensor | None,
    rows: Tensor,
    total: int,
) -> Tensor | None:
    """Return which of a hull's own generators do not count for its `rows`, or raise."""
    if exclude is None:
        return None
    skip, count = _to_generators(exclude[rows], bank_rows, total), len(generators)
    none = ((skip >= 0).sum(dim=1) >= count).nonzero()[:, 0]
    if len(none):
        raise ArgumentError(
            "leave_out",
            f"all {count} generators of the hull of row {int(rows[none[0]])}",
            "at least one generator left",
            "drop such rows: a single example has no other to be compared with",
        )
    return skip
