"""How far the hulls of two classes are from each other, or where they meet."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_labelled
from fsboundary.core.checks import check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import HullSeparation
from fsboundary.core.status import Status
from fsboundary.geometry.hulls.separation import Differences, Side, separate
from fsboundary.hulls.projection import HULL_RTOL, MAX_STEPS, class_part
from fsboundary.plugins import create
from fsboundary.plugins.grading.hulls import project_and_grade
from fsboundary.plugins.interfaces import HullSolver


def hull_separation(
    bank: FeatureBank,
    i: int | Int[Tensor, " P"],
    j: int | Int[Tensor, " P"],
    *,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> HullSeparation:
    """Return the nearest points of the hulls of two classes, and what separates these.

    The distance between two hulls is that of 0 from the hull of all differences, on which 0 is
    projected; no difference but those that carry weight is ever formed. The answer is judged
    again on each side, by a pass over its own points.

    Parameters
    ----------
    bank : FeatureBank
        With labels.
    i, j : int or Tensor (P,)
        Classes; numbers are one pair, P = 1. For all pairs of K classes:
        ``i, j = torch.combinations(torch.arange(K)).T``.
    solver : str or HullSolver
        The default is slow, and may end undecided, where hulls of thousands of points meet in
        hundreds of dimensions; ``"interior_point"`` is meant for these.
    tolerance : float, optional
        Relative tolerance of the distance, default 1e-6; 1e-9 of the RMS norm of the differences
        about their mean is always allowed.
    max_steps : int, optional
        Passes over the points of the two classes, default 200.
    show_progress : bool

    Returns
    -------
    HullSeparation
        On the CPU. NaN with MAX_STEPS or INACCURATE where there is no certified answer;
        ``lower_bound`` holds all the same.

    Raises
    ------
    ArgumentError
        Wrong types or limits, a bank without labels, a class that no row has, or twice the same,
        before any work.
    DataError
        A damaged bank.
    PluginError
        The solver raised or answered in the wrong shape.
    """
    present = check_labelled(check_bank(bank)).unique().cpu()
    pairs = _pairs(_classes("i", i, present), _classes("j", j, present))
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    answers = [
        _pair(bank, pair, plugin, rtol, limit)
        for pair in tqdm(pairs.tolist(), unit="pair", disable=not show_progress)
    ]
    fields = {
        name: _padded([answer[name] for answer in answers], -1 if name == "support" else 0)
        for name in answers[0]
    }
    fields["support"], fields["weights"] = fields["support"].mT, fields["weights"].mT
    return HullSeparation(classes=pairs, **fields)


def _pair(
    bank: FeatureBank, pair: list[int], plugin: HullSolver, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the fields of one pair of classes; supports and weights as (S,2)."""
    (one, rows), (other, columns) = (class_part(bank, k) for k in pair)
    points = Differences(one, other)
    origin = torch.zeros(1, bank.num_features, dtype=torch.float64)
    found = project_and_grade(plugin, points, origin, exclude=None, tolerance=rtol, max_steps=limit)
    used = found.support[0] >= 0
    # where the solver named nothing usable, any difference gives a bound
    index = found.support[0][used] if used.any() else torch.zeros(1, dtype=torch.int64)
    weights = found.weights[0][used] if used.any() else torch.ones(1, dtype=torch.float64)
    first, second = points.split(index)
    a, b = _side(one, first, weights), _side(other, second, weights)
    sure = separate(a, b)
    meet, apart = sure.distance <= sure.atol, sure.lower_bound > sure.atol
    gap = sure.distance - sure.lower_bound
    converged = meet | (gap <= torch.maximum(sure.atol, rtol * sure.distance))
    failed = Status.MAX_STEPS if found.steps[0] >= limit else Status.INACCURATE
    return {
        "points": _only(converged, sure.points),
        "distance": _only(converged, sure.distance),
        "lower_bound": sure.lower_bound,
        "gap": _only(converged, gap),
        "intersect": meet.long() - apart.long(),
        "common_point": _only(meet, sure.middle),
        "support": _padded([rows.cpu()[a.support], columns.cpu()[b.support]], -1).mT,
        "weights": _padded([a.weights, b.weights], 0).mT,
        "normal": _only(apart, sure.normal),
        "offset": _only(apart, sure.offset),
        "status": torch.where(converged, int(Status.CONVERGED), int(failed)),
        "steps": found.steps[0],
    }


def _side(points: FeatureBank, rows: Tensor, weights: Tensor) -> Side:
    """Return the combination of one side: rows that are in several differences count once."""
    support, place = rows.unique(return_inverse=True)
    own = torch.zeros(len(support), dtype=torch.float64).index_add_(0, place, weights)
    return Side(points=points, support=support, weights=own / own.sum())


def _only(condition: Tensor, value: Tensor) -> Tensor:
    return torch.where(condition, value, torch.nan)


def _padded(tables: list[Tensor], padding: int) -> Tensor:
    """Return tables of several lengths as one."""
    if tables[0].ndim == 0:
        return torch.stack(tables)
    return torch.nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=padding)


def _classes(name: str, value: object, present: Tensor) -> Tensor:
    """Return the classes (P,) that `value` names, or raise ArgumentError."""
    classes = torch.tensor(value) if isinstance(value, int) else value
    integral = isinstance(classes, Tensor) and classes.dtype in (torch.int32, torch.int64)
    if not isinstance(classes, Tensor) or not integral or classes.ndim > 1:
        got = repr(value) if not isinstance(value, Tensor) else f"{value.dtype} {value.shape}"
        fix = "pass two numbers for one pair, or two tensors of the same length"
        raise ArgumentError(name, got, "a class number, or an integer tensor (P,)", fix)
    missing = classes[~torch.isin(classes.cpu(), present)]
    if len(missing):
        raise ArgumentError(
            name,
            f"{missing.unique().tolist()}, which no row has",
            "classes that the bank holds",
            f"choose among {', '.join(map(str, present[:20].tolist()))}",
        )
    return classes.detach().cpu().long().reshape(-1)


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Return pairs of classes (P,2), or raise ArgumentError."""
    got = f"{len(second)} classes for {len(first)} of i"
    if len(first) != len(second) or len(first) == 0:
        raise ArgumentError("j", got, "as many as i, at least one", "pair them one by one")
    same = first[first == second]
    if len(same):
        fix = "leave such pairs out: a hull meets itself"
        raise ArgumentError("j", f"class {int(same[0])} for both", "two different classes", fix)
    return torch.stack([first, second], dim=1)
