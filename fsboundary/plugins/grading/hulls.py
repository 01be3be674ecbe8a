"""Grading of hull solvers: everything is recomputed from the generators."""

from __future__ import annotations

import weakref
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import grade_hulls
from fsboundary.geometry.hulls.point_sets import view_of
from fsboundary.geometry.hulls.row_sets import SharedSet, SmallSets
from fsboundary.plugins.grading.calls import (
    Answer,
    in_thread_for,
    is_built_in,
    label_of,
    plugin_call,
)
from fsboundary.plugins.interfaces import HullSolver, unsolved_hulls

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
        The solver raised, or a field of its answer has another type, shape or device.
    """
    solve = in_thread_for(solver, _project_and_grade)
    return solve(solver, points, queries, exclude, tolerance, max_steps)


def _project_and_grade(
    solver: HullSolver,
    points: PointSet,
    queries: Tensor,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> HullProjection:
    proposal = _propose(solver, points, queries, exclude, tolerance, max_steps)
    sets = SharedSet(points, exclude)
    return grade_hulls(sets, queries, proposal, rtol=tolerance, max_steps=max_steps)


def _propose(
    solver: HullSolver,
    points: PointSet,
    queries: Tensor,
    exclude: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> HullProjection:
    """Return supports, weights and steps of `solver`, which gets copies and a sealed view."""
    label, own = label_of("hull solver", solver), is_built_in(solver)
    states = _states.setdefault(points, {})
    # a damaged bank is no fault of the solver that met it
    with plugin_call(label, trusted=own, passes=(DataError,)):
        key = f"{type(solver).__module__}.{solver!r}"
        if key not in states:
            # with the solver, so that no other gets its address, which the default repr contains
            states[key] = solver, solver.prepare(view_of(points))
        answer = solver.project(
            states[key][1],
            queries.clone(),
            exclude=None if exclude is None else exclude.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    fields = Answer(label, answer, HullProjection, queries.device, own=own)
    support = fields.integers("support", len(queries), "S")
    weights = fields.floats("weights", *support.shape)
    steps = fields.counts("steps", len(queries))
    return HullProjection(
        **unsolved_hulls(queries) | {"support": support, "weights": weights, "steps": steps}
    )


@runtime_checkable
class SmallSetSolver(Protocol):
    """A built-in solver that also projects on a small set of its own for each row."""

    def weights_of_few(self, points: Tensor, valid: Tensor) -> Tensor:
        """Return simplex weights (B,S) of the least-norm point of each hull of `points` (B,S,d)."""
        ...


def project_small_and_grade(
    solver: SmallSetSolver,
    sets: SmallSets,
    queries: Tensor,
    *,
    tolerance: float,
    max_steps: int,
) -> HullProjection:
    """Return the graded projections of each row on the hull of its own small set.

    Parameters
    ----------
    solver : SmallSetSolver
        A built-in plugin.
    sets : SmallSets
        The generators of each row, of which at least one counts.
    queries : Tensor (B, d), float64
        Finite rows to project.
    tolerance, max_steps
        As for :func:`project_and_grade`; all generators are read in one step.
    """
    slots = torch.arange(sets.counting.shape[1], device=queries.device)
    with plugin_call(label_of("hull solver", solver), trusted=True):
        weights = solver.weights_of_few(sets.shifted(queries), sets.counting.clone())
    fields = unsolved_hulls(queries) | {"support": torch.where(weights > 0, slots, -1)}
    fields |= {"weights": weights, "steps": torch.ones_like(fields["steps"])}
    return grade_hulls(sets, queries, HullProjection(**fields), rtol=tolerance, max_steps=max_steps)
