"""Plugins: found, loaded one at a time at first use, isolated, and selected by name or instance.

The built-in plugin is loaded first and by name; a plugin of another distribution (entry-point
group ``fsboundary``) is imported only when a name that is not built in is asked for, or when all
are listed. One that fails is set aside with its reason, which ``fsboundary plugins`` shows; the
rest work.

The environment variable ``FSBOUNDARY_PLUGINS`` chooses, and is read once, at first use:

- unset: all installed plugins;
- empty: the built-in plugin only;
- a comma-separated list of distribution or entry-point names: these besides the built-in one.
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
    """Return a plugin, made by name or passed through.

    Parameters
    ----------
    kind : {"feature_extractor", "hull_solver", "boundary_finder"}
    plugin : str or object
        A name that ``fsboundary plugins`` lists, or an instance of the kind's interface.
    options : dict, optional
        Constructor arguments; with a name only.
    capability : str, optional
        What the plugin must be able to do. "pixels" selects boundary finders that work on
        images, which are not eligible without it.

    Returns
    -------
    FeatureExtractor, HullSolver, BoundaryFinder or ImageBoundaryFinder

    Raises
    ------
    ArgumentError
        No such plugin, an option that it does not take, or an object of another type.
    PluginError
        The plugin's factory failed or made something else.
    """
    return _create(_registry, kind, plugin, options=options, capability=capability)


def describe() -> list[PluginInfo]:
    """Load every chosen plugin and list all, with the reasons of those set aside.

    Returns
    -------
    list of PluginInfo
        Built-in ones first, then by distribution.
    """
    return _registry.describe()


def reset() -> None:
    """Forget what was loaded, so that the next use finds plugins anew; for tests."""
    _registry.reset()
