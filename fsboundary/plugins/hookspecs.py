"""Hook specifications of the four kinds of plugin."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from fsboundary.plugins.interfaces import Registration

PROJECT = "fsboundary"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_feature_extractors() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.plugins.interfaces.FeatureExtractor`."""


@hookspec
def register_hull_solvers() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.plugins.interfaces.HullSolver`."""


@hookspec
def register_boundary_finders() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.plugins.interfaces.BoundaryFinder`.

    With the capability "pixels" they make
    :class:`~fsboundary.plugins.interfaces.ImageBoundaryFinder` instead.
    """


@hookspec
def register_body_bounds() -> Iterable[Registration]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return registrations that make :class:`~fsboundary.plugins.interfaces.BodyBounds`."""
