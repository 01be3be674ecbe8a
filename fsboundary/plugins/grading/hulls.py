"""Grading of hull solvers: everything is recomputed from the generators."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from fsboundary.core.errors import DataError, PluginError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import grade_hulls
from fsboundary.geometry.hulls.point_sets import view_of
from fsboundary.plugins.interfaces import HullSolver

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
    """Return the graded projections that `solver` proposes.

    Prepared states are kept by point set and by the solver's options (its repr).

    Parameters
    ----------
    solver : HullSolver
        The plugin.
    points : PointSet
        The generators.
    queries : Tensor (B, d), float64
        Finite rows to project.
    exclude : Tensor (B, E), optional
        Generators that do not count in a row, -1 as padding.
    tolerance : float
        Tolerance of the gap relative to the distance.
    max_steps : int
        Limit of the solver's steps.

    Raises
    ------
    DataError
        A damaged bank.
    PluginError
        The solver raised, or its answer has the wrong type or shapes.
    """
    proposed = _project(solver, points, queries, exclude, tolerance, max_steps)
    answer = _as_projection(type(solver).__name__, proposed, len(queries))
    return grade_hulls(
        points, queries, answer, exclude=exclude, rtol=tolerance, max_steps=max_steps
    )


def _project(
    solver: HullSolver,
    points: PointSet,
    queries: Tensor,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> object:
    """Return the answer of `solver`, which gets copies and a weak view."""
    states = _states.setdefault(points, {})
    key = f"{type(solver).__module__}.{solver!r}"
    try:
        if key not in states:
            states[key] = solver.prepare(view_of(points))
        return solver.project(
            states[key],
            queries.clone(),
            exclude=None if exclude is None else exclude.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    except DataError:
        # a damaged bank is no fault of the solver that met it
        raise
    except Exception as error:
        name = type(solver).__name__
        raise PluginError(f"hull solver {name} raised {type(error).__name__}: {error}") from error


def _as_projection(name: str, answer: object, rows: int) -> HullProjection:
    """Return `answer`, or raise PluginError unless it is a projection of `rows` rows."""
    if not isinstance(answer, HullProjection):
        raise PluginError(
            f"hull solver {name} returned {type(answer).__name__}; wanted HullProjection"
        )
    for field in ("support", "weights"):
        got = tuple(getattr(answer, field).shape)
        if len(got) != 2 or got[0] != rows or got != tuple(answer.support.shape):
            raise PluginError(f"hull solver {name}: {field} has shape {got}; wanted ({rows}, S)")
    if tuple(answer.steps.shape) != (rows,):
        got = tuple(answer.steps.shape)
        raise PluginError(f"hull solver {name}: steps has shape {got}; wanted ({rows},)")
    return answer
