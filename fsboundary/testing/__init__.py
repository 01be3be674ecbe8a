"""Conformance suites for plugins and for Captum's attribution methods.

One line in a plugin's tests creates a parametrised pytest function with one case per check::

    test_my_solver = fsboundary.testing.hull_solver_tests(MySolver)

``fsboundary plugins check NAME`` runs the same checks without pytest. Names of checks are stable.
"""

from __future__ import annotations

from fsboundary.testing.check_plugin import check_plugin
from fsboundary.testing.checks.bounds import body_bounds_tests
from fsboundary.testing.checks.captum import captum_attribution_tests
from fsboundary.testing.checks.extractors import feature_extractor_tests
from fsboundary.testing.checks.flips import boundary_finder_tests
from fsboundary.testing.checks.hulls import hull_solver_tests
from fsboundary.testing.checks.images import image_finder_tests
from fsboundary.testing.suite import CheckFailure, Outcome, Suite

__all__ = [
    "CheckFailure",
    "Outcome",
    "Suite",
    "body_bounds_tests",
    "boundary_finder_tests",
    "captum_attribution_tests",
    "check_plugin",
    "feature_extractor_tests",
    "hull_solver_tests",
    "image_finder_tests",
]
