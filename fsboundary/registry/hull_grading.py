"""Every hull solver's answer is checked for shape, then graded from the raw inputs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from fsboundary.errors import PluginError
from fsboundary.geometry.certify_hulls import grade_hulls
from fsboundary.interfaces import HullSolver
from fsboundary.protocols import PointSet
from fsboundary.results import HullProjection

_states: weakref.WeakKeyDictionary[PointSet, dict[str, Any]] = weakref.WeakKeyDictionary()


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
    PluginError
        The solver raised, or its answer has the wrong type or shapes.
    """
    name = type(solver).__name__
    kept = _states.setdefault(points, {})
    key = f"{type(solver).__module__}.{solver!r}"
    try:
        if key not in kept:
            kept[key] = solver.prepare(points)
        answer = solver.project(
            kept[key],
            queries.clone(),
            exclude=None if exclude is None else exclude.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    except Exception as error:
        raise PluginError(f"hull solver {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(answer, HullProjection):
        raise PluginError(
            f"hull solver {name} returned {type(answer).__name__}; wanted HullProjection"
        )
    rows = len(queries)
    for field in ("support", "weights"):
        got = tuple(getattr(answer, field).shape)
        if len(got) != 2 or got[0] != rows or got != tuple(answer.support.shape):
            raise PluginError(f"hull solver {name}: {field} has shape {got}; wanted ({rows}, S)")
    if tuple(answer.steps.shape) != (rows,):
        got = tuple(answer.steps.shape)
        raise PluginError(f"hull solver {name}: steps has shape {got}; wanted ({rows},)")
    return grade_hulls(
        points, queries, answer, exclude=exclude, rtol=tolerance, max_steps=max_steps
    )
