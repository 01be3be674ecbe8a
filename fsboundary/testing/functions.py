"""One line in a plugin's own tests: a parametrised pytest function for each kind of plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fsboundary.plugins.interfaces import (
    BoundaryFinder,
    FeatureExtractor,
    HullSolver,
    ImageBoundaryFinder,
)
from fsboundary.testing.checks.extractors import EXTRACTOR_CHECKS, ExtractorSubject
from fsboundary.testing.checks.flips import FLIP_CHECKS, FlipSubject
from fsboundary.testing.checks.hulls import HULL_CHECKS, HullSubject
from fsboundary.testing.checks.images import IMAGE_CHECKS, ImageSubject
from fsboundary.testing.checks.nonlinear import NONLINEAR_CHECKS, NonlinearSubject
from fsboundary.testing.suite import NONE, Suite


def hull_suite(
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NONE
) -> Suite[HullSubject]:
    """Return the checks of a hull solver, to be run without pytest."""
    return Suite(HULL_CHECKS, lambda: HullSubject(factory), expected_failures)


def flip_suite(
    factory: Callable[[], BoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[FlipSubject]:
    """Return the checks of a boundary finder, to be run without pytest."""
    return Suite(FLIP_CHECKS, lambda: FlipSubject(factory), expected_failures)


def nonlinear_suite(
    factory: Callable[[], BoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[NonlinearSubject]:
    """Return the checks of a finder for non-linear heads, to be run without pytest."""
    return Suite(NONLINEAR_CHECKS, lambda: NonlinearSubject(factory), expected_failures)


def image_suite(
    factory: Callable[[], ImageBoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[ImageSubject]:
    """Return the checks of a finder of images on a boundary, to be run without pytest."""
    return Suite(IMAGE_CHECKS, lambda: ImageSubject(factory), expected_failures)


def extractor_suite(
    factory: Callable[[], FeatureExtractor], expected_failures: Mapping[str, str] = NONE
) -> Suite[ExtractorSubject]:
    """Return the checks of a feature extractor, to be run without pytest."""
    return Suite(EXTRACTOR_CHECKS, lambda: ExtractorSubject(factory), expected_failures)


def hull_solver_tests(
    factory: Callable[[], HullSolver], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a hull solver to its contract.

    Bind it to a name that pytest collects: ``test_my_solver = hull_solver_tests(MySolver)``.

    Parameters
    ----------
    factory : callable
        Makes the solver, without arguments: its class, or a function that passes options.
    expected_failures : mapping of str to str
        Check name to the reason why the solver fails it. Strict: a check listed here must fail.

    Returns
    -------
    callable
        Parametrised by the checks' names, which stay the same from version to version.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    return hull_suite(factory, expected_failures).pytest_function()


def boundary_finder_tests(
    factory: Callable[[], BoundaryFinder],
    expected_failures: Mapping[str, str] = NONE,
    *,
    nonlinear_head: bool = False,
) -> Callable[[str], None]:
    """Return a pytest function that holds a boundary finder in feature space to its contract.

    Parameters
    ----------
    factory : callable
        Makes the finder, without arguments.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.
    nonlinear_head : bool
        Whether it is held to the contract of the capability of that name, instead of that for
        linear heads.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    if nonlinear_head:
        return nonlinear_suite(factory, expected_failures).pytest_function()
    return flip_suite(factory, expected_failures).pytest_function()


def image_finder_tests(
    factory: Callable[[], ImageBoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a finder of images on a boundary to its contract.

    Parameters
    ----------
    factory : callable
        Makes the finder (hook ``register_boundary_finders``, capability "pixels"), without
        arguments.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    return image_suite(factory, expected_failures).pytest_function()


def feature_extractor_tests(
    factory: Callable[[], FeatureExtractor], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a feature extractor to its contract.

    The model and the images are the suite's own, a small network of convolutions, unless the
    extractor offers others by :meth:`fsboundary.FeatureExtractor.example`.

    Parameters
    ----------
    factory : callable
        Makes the extractor, without arguments.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    return extractor_suite(factory, expected_failures).pytest_function()
