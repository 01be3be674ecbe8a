"""Every hull solver's answer is checked for shape, then graded from the raw inputs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from fsboundary.core.errors import DataError, PluginError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import extent, grade_hulls
from fsboundary.geometry.hulls.point_sets import Lent
from fsboundary.plugins.interfaces import HullSolver

_states: weakref.WeakKeyDictionary[PointSet, tuple[Lent, dict[str, Any]]] = (
    weakref.WeakKeyDictionary()
)


def project_and_grade(
    solver: HullSolver,
    points: PointSet,
    queries: Tensor,
    *,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> HullProjection:
    """Ask `solver` for projections and return the graded answer.

    Prepared states are kept by point set and by the solver's options (its repr).

    Parameters
    ----------
    points : PointSet
    queries : Tensor (B, d), float64, finite
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.

    Raises
    ------
    DataError
        A damaged bank.
    PluginError
        The solver raised, or its answer has the wrong type or shapes.
    """
    name = type(solver).__name__
    if points not in _states:
        _states[points] = Lent(points, extent(points).largest), {}
    lent, kept = _states[points]
    key = f"{type(solver).__module__}.{solver!r}"
    try:
        if key not in kept:
            kept[key] = solver.prepare(lent)
        answer = solver.project(
            kept[key],
            queries.clone(),
            exclude=None if exclude is None else exclude.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    except DataError:
        # a damaged bank is no fault of the solver that met it
        raise
    except Exception as error:
        raise PluginError(f"hull solver {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(answer, HullProjection):
        raise PluginError(
            f"hull solver {name} returned {type(answer).__name__}; wanted HullProjection"
        )
    rows = len(queries)
    if tuple(answer.normal.shape) != (got := tuple(queries.shape)):
        raise PluginError(
            f"hull solver {name}: normal has shape {tuple(answer.normal.shape)}; wanted {got}"
        )
    for field in ("support", "weights"):
        got = tuple(getattr(answer, field).shape)
        if len(got) != 2 or got[0] != rows or got != tuple(answer.support.shape):
            raise PluginError(f"hull solver {name}: {field} has shape {got}; wanted ({rows}, S)")
    if tuple(answer.steps.shape) != (rows,):
        got = tuple(answer.steps.shape)
        raise PluginError(f"hull solver {name}: steps has shape {got}; wanted ({rows},)")
    try:
        return grade_hulls(
            lent, queries, answer, exclude=exclude, rtol=tolerance, max_steps=max_steps
        )
    finally:
        lent.forget()
