"""Separation of class hulls: their distance and a separating hyperplane, or a common point."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.banks.checks import check_classes, labels_of
from fsboundary.core.checks import check_integer_tensor, check_limits, check_shape
from fsboundary.core.results import HullSeparation
from fsboundary.core.rows import TensorOrArray, stack_ragged
from fsboundary.core.status import Status
from fsboundary.geometry.hulls.certify import grade_separation
from fsboundary.geometry.hulls.separation import Differences, Side, separate
from fsboundary.hulls.class_hulls import class_generators
from fsboundary.hulls.projection import HULL_RTOL, MAX_STEPS
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.grading.hulls import project_and_grade
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.progress import tqdm


@in_standard_modes
def hull_separation(
    bank: FeatureBank,
    i: int | Int[TensorOrArray, " P"],
    j: int | Int[TensorOrArray, " P"],
    *,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> HullSeparation:
    """Return the nearest points of the hulls of two classes, and what separates the hulls.

    The distance between two hulls is that of 0 from the hull of all differences, on which 0 is
    projected; only differences that carry weight are ever formed. The result is then certified on
    each side, in one pass over the points of that side.

    Parameters
    ----------
    bank : FeatureBank
        A bank with labels.
    i, j : int or Tensor or array (P,)
        Classes; two numbers are one pair, P = 1. For all pairs of K classes:
        ``i, j = torch.combinations(torch.arange(K)).T``.
    solver : str or HullSolver
        The default is slow, and may end undecided, if hulls of thousands of points meet in
        hundreds of dimensions; ``"interior_point"`` is meant for these.
    tolerance : float, optional
        Relative tolerance of the distance, default 1e-6. Always allowed is 1e-9 of the RMS norm of
        the differences about their mean, or of the supports' mean distance from the two nearest
        points, by weight, where that is less.
    max_steps : int, optional
        Passes over the points of the two classes, default 200.
    show_progress : bool

    Returns
    -------
    HullSeparation
        On the CPU. NaN with MAX_STEPS or INACCURATE where there is no certified answer;
        ``lower_bound`` holds anyway.

    Raises
    ------
    ArgumentError
        Wrong types or limits, a bank without labels, a class that no row has, or the same class
        twice, before any work.
    DataError
        A damaged bank.
    PluginError
        The solver raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> apart = fsb.hull_separation(bank, 0, 1)
    >>> apart.distance.round(decimals=4).tolist()
    [5.6569]
    """
    labels = labels_of(check_bank(bank)).cpu()
    first, second = check_classes("i", i, labels), check_classes("j", j, labels)
    check_shape("j", second, (len(first),), fix="pass one j for each i")
    pairs = torch.stack([first, second], dim=1)
    fix = "leave such pairs out: a hull meets itself"
    check_integer_tensor("i, j", pairs, fix=fix, noun="classes", distinct=True)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    solved = [
        _separate_pair(bank, pair, plugin, rtol, limit)
        for pair in tqdm(pairs.tolist(), unit="pair", disable=not show_progress)
    ]
    columns = {name: [fields[name] for fields in solved] for name in solved[0]}
    padding = {"support": -1, "weights": 0}
    fields = {
        name: stack_ragged(column, padding[name]) if name in padding else torch.stack(column)
        for name, column in columns.items()
    }
    return HullSeparation(classes=pairs, **fields)


def _separate_pair(
    bank: FeatureBank, pair: list[int], plugin: HullSolver, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the fields of one pair of classes; supports and weights as (2,S)."""
    (one, one_rows), (other, other_rows) = (class_generators(bank, k) for k in pair)
    points = Differences(one, other)
    origin = torch.zeros(1, bank.num_features, dtype=torch.float64)
    projection = project_and_grade(
        plugin, points, origin, exclude=None, tolerance=rtol, max_steps=limit
    )
    used = projection.support[0] >= 0
    # if the solver returned nothing usable, any difference gives a bound
    index = projection.support[0][used] if used.any() else torch.zeros(1, dtype=torch.int64)
    weights = projection.weights[0][used] if used.any() else torch.ones(1, dtype=torch.float64)
    first, second = points.split(index)
    a, b = _side(one, first, weights), _side(other, second, weights)
    # from 0 to the differences a - b is the direction from the second hull to the first
    sure = separate(a, b, hint=projection.normal[0])
    grade = grade_separation(sure, rtol=rtol, ran_out=bool(projection.steps[0] >= limit))
    converged = grade.status == Status.CONVERGED
    support = [one_rows.cpu()[a.support], other_rows.cpu()[b.support]]
    return {
        "points": _nan_unless(converged, sure.points),
        "distance": _nan_unless(converged, sure.distance),
        "lower_bound": sure.lower_bound,
        "gap": _nan_unless(converged, grade.gap),
        "intersect": grade.intersect,
        "common_point": _nan_unless(grade.intersect == 1, sure.midpoint),
        "support": stack_ragged(support, -1),
        "weights": stack_ragged([a.weights, b.weights], 0),
        "normal": _nan_unless(grade.intersect == -1, sure.normal),
        "offset": _nan_unless(grade.intersect == -1, sure.offset),
        "status": grade.status,
        "steps": projection.steps[0],
    }


def _side(points: FeatureBank, rows: Tensor, weights: Tensor) -> Side:
    """Return the convex combination of one side, with the weights of repeated rows summed."""
    support, inverse = rows.unique(return_inverse=True)
    sums = torch.zeros(len(support), dtype=torch.float64).index_add_(0, inverse, weights)
    return Side(points=points, support=support, weights=sums / sums.sum())


def _nan_unless(condition: Tensor, value: Tensor) -> Tensor:
    return torch.where(condition, value, torch.nan)
