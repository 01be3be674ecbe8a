"""Conformance checks of a plugin selected by name, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError
from fsboundary.plugins import Kind, PluginInfo
from fsboundary.plugins.registry.info import NONLINEAR_HEAD, PIXELS
from fsboundary.testing.checks.bounds import bounds_suite
from fsboundary.testing.checks.extractors import extractor_suite
from fsboundary.testing.checks.flips import flip_suite
from fsboundary.testing.checks.hulls import hull_suite
from fsboundary.testing.checks.images import image_suite
from fsboundary.testing.checks.nonlinear import nonlinear_suite
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Outcome, Suite

_SUITES: dict[Kind, Callable[..., Suite[Any]]] = {
    "feature_extractor": extractor_suite,
    "hull_solver": hull_suite,
    "boundary_finder": flip_suite,
    "body_bound": bounds_suite,
}
_SPECIAL: dict[str, Callable[..., Suite[Any]]] = {
    PIXELS: image_suite,
    NONLINEAR_HEAD: nonlinear_suite,
}


def check_plugin(
    name: str,
    *,
    options: dict[str, Any] | None = None,
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Iterator[tuple[PluginInfo, Iterator[Outcome]]]:
    """Run the conformance checks of every plugin called `name`.

    Parameters
    ----------
    name : str
        Name listed by ``fsboundary plugins``; plugins of different kinds may share it.
    options : dict, optional
        Constructor arguments.
    expected_failures : mapping of str to str
        Map from check name to the reason why the plugin fails it.

    Yields
    ------
    (PluginInfo, iterator of Outcome)
        A plugin and its outcomes, produced one by one as the checks run.

    Raises
    ------
    ArgumentError
        No plugin of that name is ready.

    Examples
    --------
    >>> from fsboundary.testing import check_plugin
    >>> info, outcomes = next(check_plugin("ddn"))
    >>> info.kind, next(outcomes).passed
    ('boundary_finder', True)
    """
    listed = [info for info in plugins.describe() if info.name == name]
    ready = [info for info in listed if info.state == "ready"]
    if not ready:
        got = f"{name!r}, rejected: {listed[0].reason}" if listed else repr(name)
        fix = "`fsboundary plugins` lists plugins, and the reasons of rejected ones"
        raise ArgumentError("name", got, "a plugin that is ready", fix)
    for info in ready:
        yield info, _suite_of(info, options)(expected_failures).outcomes()


def _suite_of(
    info: PluginInfo, options: dict[str, Any] | None
) -> Callable[[Mapping[str, str]], Suite[Any]]:
    assert info.kind  # only plugins that were rejected may lack it
    kind: Kind = info.kind
    capability = next((name for name in _SPECIAL if name in info.capabilities), None)
    suite = _SPECIAL[capability] if capability else _SUITES[kind]

    def make() -> Any:
        return plugins.create(kind, info.name, options=options, capability=capability)

    return partial(suite, make)
