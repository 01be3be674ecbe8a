"""The conformance suites over every built-in plugin."""

from __future__ import annotations

import pytest

from fsboundary import registry
from fsboundary.builtin.extractors.head_input import HeadInput
from fsboundary.builtin.finders.closed_form import ClosedForm
from fsboundary.builtin.finders.cvxpy_clarabel import CvxpyFinder
from fsboundary.builtin.finders.ddn import DecoupledDescent
from fsboundary.builtin.finders.dual_newton import DualNewton
from fsboundary.builtin.finders.feature_guided import FeatureGuided
from fsboundary.builtin.finders.line_search import LineSearch
from fsboundary.builtin.solvers.active_set import ActiveSet
from fsboundary.builtin.solvers.away_steps import AwaySteps
from fsboundary.builtin.solvers.cvxpy_clarabel import CvxpyHull
from fsboundary.builtin.solvers.nnls import Nnls
from fsboundary.testing import (
    boundary_finder_tests,
    feature_extractor_tests,
    hull_solver_tests,
    image_finder_tests,
)

test_head_input = feature_extractor_tests(HeadInput)

test_active_set = hull_solver_tests(ActiveSet)
test_away_steps = hull_solver_tests(AwaySteps)
test_cvxpy_hull = hull_solver_tests(CvxpyHull)
test_nnls = hull_solver_tests(Nnls)

_ALONE = "the formula knows the hyperplane alone"
test_dual_newton = boundary_finder_tests(DualNewton)
test_closed_form = boundary_finder_tests(
    ClosedForm,
    {
        "known_answers_with_third_classes": _ALONE,
        "known_answers_in_a_domain": _ALONE,
        "ordinary_heads_are_certified": _ALONE,
        "domain_is_respected": _ALONE,
    },
)
test_cvxpy_finder = boundary_finder_tests(
    CvxpyFinder, {"unreachable_target_is_infeasible": "cvxpy passes on no proof of infeasibility"}
)

test_feature_guided = image_finder_tests(FeatureGuided)
test_ddn = image_finder_tests(DecoupledDescent)
test_line_search = image_finder_tests(
    LineSearch, {"known_answers": "a line in feature space gives an image that is far away"}
)

SUITES = {
    "feature_extractor": {HeadInput},
    "hull_solver": {ActiveSet, AwaySteps, CvxpyHull, Nnls},
    "boundary_finder": {
        DualNewton,
        ClosedForm,
        CvxpyFinder,
        FeatureGuided,
        DecoupledDescent,
        LineSearch,
    },
}


@pytest.mark.parametrize("kind", SUITES)
def test_every_built_in_plugin_is_listed_above(kind: registry.Kind) -> None:
    made = {
        type(
            registry.create(
                kind,
                info.name,
                capability="pixels" if "pixels" in info.capabilities else None,
            )
        )
        for info in registry.describe()
        if info.kind == kind and info.distribution == "fsboundary"
    }
    assert made == SUITES[kind]
