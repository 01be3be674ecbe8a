"""Conformance suites for every built-in plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsboundary import plugins
from fsboundary.testing import (
    body_bounds_tests,
    boundary_finder_tests,
    feature_extractor_tests,
    hull_solver_tests,
    image_finder_tests,
)

TESTED: set[tuple[str, str]] = set()


def built_in(kind: plugins.Kind, name: str, capability: str | None = None) -> Callable[[], Any]:
    """Return a factory of the plugin called `name`, and record that it is tested."""
    TESTED.add((kind, name))
    return lambda: plugins.create(kind, name, capability=capability)


def extractor(name: str) -> Callable[[], Any]:
    return built_in("feature_extractor", name)


def solver(name: str) -> Callable[[], Any]:
    return built_in("hull_solver", name)


def finder(name: str) -> Callable[[], Any]:
    return built_in("boundary_finder", name)


def bounds(name: str) -> Callable[[], Any]:
    return built_in("body_bound", name)


def images(name: str) -> Callable[[], Any]:
    return built_in("boundary_finder", name, "pixels")


test_head_input = feature_extractor_tests(extractor("head_input"))

test_active_set = hull_solver_tests(solver("active_set"))
test_away_steps = hull_solver_tests(solver("away_steps"))
test_cvxpy_hull = hull_solver_tests(solver("cvxpy"))
test_interior_point = hull_solver_tests(solver("interior_point"))
test_nnls = hull_solver_tests(solver("nnls"))

_HYPERPLANE_ONLY = "the formula uses only the hyperplane"
test_dual_newton = boundary_finder_tests(finder("dual_newton"))
test_closed_form = boundary_finder_tests(
    finder("closed_form"),
    {
        "known_answers_with_third_classes": _HYPERPLANE_ONLY,
        "known_answers_in_a_domain": _HYPERPLANE_ONLY,
        "ordinary_heads_are_certified": _HYPERPLANE_ONLY,
        "domain_is_respected": _HYPERPLANE_ONLY,
    },
)
test_cvxpy_finder = boundary_finder_tests(
    finder("cvxpy"),
    {"unreachable_target_is_infeasible": "cvxpy returns no proof of infeasibility"},
)
test_linearised = boundary_finder_tests(finder("linearised"), nonlinear_head=True)
test_linearised_on_linear_heads = boundary_finder_tests(finder("linearised"))

test_interval = body_bounds_tests(bounds("interval"))
test_linear_bounds = body_bounds_tests(bounds("linear_bounds"))

test_feature_guided = image_finder_tests(images("feature_guided"))
test_ddn = image_finder_tests(images("ddn"))
test_line_search = image_finder_tests(
    images("line_search"),
    {"known_answers": "segments between images cross the boundary far away"},
)


def test_every_built_in_plugin_is_listed_above() -> None:
    listed = plugins.describe()
    assert {(i.kind, i.name) for i in listed if i.distribution == "fsboundary"} == TESTED
