"""The built-in plugin: one registration per extractor, solver, finder and bound.

Each factory imports its module when it is first called, so listing them costs nothing.
"""

from __future__ import annotations

from fsboundary.plugins import lazy
from fsboundary.plugins.hookspecs import hookimpl
from fsboundary.plugins.interfaces import Registration

_B = "fsboundary.builtin"
_C = "fsboundary.builtin.body_bounds"
_F = "fsboundary.builtin.boundary_finders"
_I = "fsboundary.builtin.image_finders"
_S = "fsboundary.builtin.hull_solvers"


@hookimpl
def register_feature_extractors() -> list[Registration]:
    """Return the built-in feature extractors."""
    return [
        Registration("head_input", lazy(f"{_B}.head_input:HeadInput"), "the input of the head"),
    ]


@hookimpl
def register_hull_solvers() -> list[Registration]:
    """Return the built-in hull solvers."""
    return [
        Registration("active_set", lazy(f"{_S}.active_set:ActiveSet"), "exact; the default"),
        Registration("away_steps", lazy(f"{_S}.away_steps:AwaySteps"), "approximate, small memory"),
        Registration("cvxpy", lazy(f"{_B}.cvxpy_reference:CvxpyHull"), "a slow reference"),
        Registration(
            "interior_point",
            lazy(f"{_S}.interior_point:InteriorPoint"),
            "few rows, wide hulls, pairs of hulls",
        ),
        Registration("nnls", lazy(f"{_S}.nnls:Nnls"), "an accurate reference, row by row"),
    ]


@hookimpl
def register_boundary_finders() -> list[Registration]:
    """Return the built-in boundary finders."""
    return [
        Registration("dual_newton", lazy(f"{_F}.dual_newton:DualNewton"), "exact; the default"),
        Registration("closed_form", lazy(f"{_F}.closed_form:ClosedForm"), "exact if no domain"),
        Registration("cvxpy", lazy(f"{_B}.cvxpy_reference:CvxpyFinder"), "a slow reference"),
        Registration(
            "linearised",
            lazy(f"{_F}.linearised:Linearised"),
            "heads that are not linear; closest is not certified",
            capabilities=frozenset({"nonlinear_head"}),
        ),
        _pixels("feature_guided", "feature_guided:FeatureGuided", "nearest images; the default"),
        _pixels("ddn", "ddn:DecoupledDescent", "a baseline after Rony et al."),
        _pixels("line_search", "line_search:LineSearch", "between two images, no gradients"),
    ]


@hookimpl
def register_body_bounds() -> list[Registration]:
    """Return the built-in bounds of bodies."""
    return [
        Registration(
            "linear_bounds",
            lazy(f"{_C}.linear_bounds:LinearBounds"),
            "linear functions of the pixels; the default",
        ),
        Registration("interval", lazy(f"{_C}.interval:Interval"), "fast, for shallow bodies"),
    ]


def _pixels(name: str, target: str, summary: str) -> Registration:
    """Return the registration of a finder that works on images."""
    return Registration(name, lazy(f"{_I}.{target}"), summary, capabilities=frozenset({"pixels"}))
