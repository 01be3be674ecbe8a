"""The three hooks, in one screen."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from fsboundary.interfaces import Registration

PROJECT = "fsboundary"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_feature_extractors() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.interfaces.FeatureExtractor`."""


@hookspec
def register_hull_solvers() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.interfaces.HullSolver`."""


@hookspec
def register_boundary_finders() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.interfaces.BoundaryFinder`.

    With the capability "pixels" they make
    :class:`~fsboundary.interfaces.ImageBoundaryFinder` instead.
    """
