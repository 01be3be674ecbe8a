"""Quadratic solvers supported by qpsolvers, as a hull solver and as a boundary finder."""

from __future__ import annotations

import fsboundary as fsb
from fsboundary.plugins import lazy


@fsb.hookimpl
def register_hull_solvers() -> list[fsb.Registration]:
    """Return the hull solver."""
    when = "a second opinion from any solver supported by qpsolvers, row by row"
    return [fsb.Registration("qpsolvers", lazy("fsboundary_qpsolvers.hull:QpHull"), when)]


@fsb.hookimpl
def register_boundary_finders() -> list[fsb.Registration]:
    """Return the boundary finder."""
    when = "a second opinion from any solver supported by qpsolvers, row by row"
    return [fsb.Registration("qpsolvers", lazy("fsboundary_qpsolvers.finder:QpFinder"), when)]
