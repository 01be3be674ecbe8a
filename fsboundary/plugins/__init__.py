"""Plugins: discovery, isolated loading at first use, and selection by name or instance.

The built-in plugin is loaded first; a plugin of another distribution (entry-point group
``fsboundary``) is imported only when a name that is not built in is requested, or when all are
listed. A plugin that fails is rejected with its reason, which ``fsboundary plugins`` shows; the
others work.

The environment variable ``FSBOUNDARY_PLUGINS`` selects plugins. It is read once, at first use:

- unset: all installed plugins;
- empty: the built-in plugin only;
- a comma-separated list of distribution or entry-point names: these and the built-in plugin.
"""

from __future__ import annotations

from typing import Any

from fsboundary.plugins.registry.identity import Identity, identify
from fsboundary.plugins.registry.info import Kind, PluginInfo, lazy
from fsboundary.plugins.registry.loading import Registry
from fsboundary.plugins.registry.selection import create as _create

__all__ = ["Identity", "Kind", "PluginInfo", "create", "describe", "identify", "lazy", "reset"]

_registry = Registry()


def create(
    kind: Kind,
    plugin: Any,
    *,
    options: dict[str, Any] | None = None,
    capability: str | None = None,
) -> Any:
    """Return a plugin: created by name, or the given instance.

    Parameters
    ----------
    kind : {"feature_extractor", "hull_solver", "boundary_finder", "body_bound"}
    plugin : str or object
        A name that ``fsboundary plugins`` lists, or an instance of the kind's interface.
    options : dict, optional
        Constructor arguments; only with a name.
    capability : str, optional
        Capability that the plugin must have. "pixels" selects boundary finders that work on
        images, which are not eligible without it.

    Returns
    -------
    FeatureExtractor, HullSolver, BoundaryFinder, ImageBoundaryFinder or BodyBounds

    Raises
    ------
    ArgumentError
        No such plugin, an option that it does not take, or an object of another type.
    PluginError
        The plugin's factory failed or returned another type.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> fsb.plugins.create("boundary_finder", "dual_newton")
    DualNewton(max_programs=2000)
    """
    return _create(_registry, kind, plugin, options=options, capability=capability)


def describe() -> list[PluginInfo]:
    """Load every selected plugin and list all, with the reasons of rejected ones.

    Returns
    -------
    list of PluginInfo
        Plugins, built-in ones first, then by distribution.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> own = [one for one in fsb.plugins.describe() if one.distribution == "fsboundary"]
    >>> [one.name for one in own if one.kind == "hull_solver"]
    ['active_set', 'away_steps', 'cvxpy', 'interior_point', 'nnls']
    """
    return _registry.describe()


def reset() -> None:
    """Unload all plugins, so that the next use discovers them again; for tests.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> fsb.plugins.reset()
    >>> fsb.plugins.create("hull_solver", "nnls")
    Nnls(max_elements=268435456)
    """
    _registry.reset()
