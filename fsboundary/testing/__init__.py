"""The public conformance suites: for plugins, and for Captum's attribution methods."""

from fsboundary.testing.captum_contract import captum_attribution_tests

__all__ = ["captum_attribution_tests"]
