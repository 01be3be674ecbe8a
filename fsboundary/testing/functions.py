"""One line in a plugin's own tests: a parametrised pytest function for each kind of plugin.

The checks of a plugin that is selected by name, without pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError
from fsboundary.plugins import Kind, PluginInfo
from fsboundary.plugins.interfaces import (
    BoundaryFinder,
    FeatureExtractor,
    HullSolver,
    ImageBoundaryFinder,
)
from fsboundary.plugins.registry.info import NONLINEAR_HEAD, PIXELS
from fsboundary.testing.checks.extractors import EXTRACTOR_CHECKS, ExtractorSubject
from fsboundary.testing.checks.flips import FLIP_CHECKS, FlipSubject
from fsboundary.testing.checks.hulls import HULL_CHECKS, HullSubject
from fsboundary.testing.checks.images import IMAGE_CHECKS, ImageSubject
from fsboundary.testing.checks.nonlinear import NONLINEAR_CHECKS, NonlinearSubject
from fsboundary.testing.suite import NONE, Outcome, Suite


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


_SUITES: dict[Kind, Callable[..., Suite[Any]]] = {
    "feature_extractor": extractor_suite,
    "hull_solver": hull_suite,
    "boundary_finder": flip_suite,
}
_SPECIAL: dict[str, Callable[..., Suite[Any]]] = {
    PIXELS: image_suite,
    NONLINEAR_HEAD: nonlinear_suite,
}


def check_plugin(
    name: str,
    *,
    options: dict[str, Any] | None = None,
    expected_failures: Mapping[str, str] = NONE,
) -> Iterator[tuple[PluginInfo, Iterator[Outcome]]]:
    """Run the conformance checks of every plugin called `name`.

    Parameters
    ----------
    name : str
        As ``fsboundary plugins`` lists it; plugins of different kinds may share it.
    options : dict, optional
        Constructor arguments.
    expected_failures : mapping of str to str
        Check name to the reason why the plugin fails it.

    Yields
    ------
    (PluginInfo, iterator of Outcome)
        The outcomes come one by one, as the checks run.

    Raises
    ------
    ArgumentError
        No plugin of that name is ready.
    """
    listed = [info for info in plugins.describe() if info.name == name]
    ready = [info for info in listed if info.state == "ready"]
    if not ready:
        got = f"{name!r}, set aside: {listed[0].reason}" if listed else repr(name)
        fix = "`fsboundary plugins` lists them, and why some were set aside"
        raise ArgumentError("name", got, "a plugin that is ready", fix)
    for info in ready:
        yield info, _suite_of(info, options)(expected_failures).outcomes()


def _suite_of(
    info: PluginInfo, options: dict[str, Any] | None
) -> Callable[[Mapping[str, str]], Suite[Any]]:
    assert info.kind  # only plugins that were set aside may lack it
    kind: Kind = info.kind
    capability = next((name for name in _SPECIAL if name in info.capabilities), None)
    suite = _SPECIAL[capability] if capability else _SUITES[kind]

    def make() -> Any:
        return plugins.create(kind, info.name, options=options, capability=capability)

    return partial(suite, make)
