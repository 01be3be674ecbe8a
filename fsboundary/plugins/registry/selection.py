"""Selection of a plugin by name or instance, with helpful errors."""

from __future__ import annotations

import contextlib
import inspect
from difflib import get_close_matches
from typing import Any

from fsboundary.core.checks import check_choice, check_instance, check_options
from fsboundary.core.errors import ArgumentError, FsboundaryError, PluginError
from fsboundary.plugins.grading.calls import restored, warn_changed
from fsboundary.plugins.registry import discovery, identity
from fsboundary.plugins.registry.info import KINDS, Entry, Kind, interface_of, needs_pixels
from fsboundary.plugins.registry.loading import BUILTIN, Registry


def create(
    registry: Registry,
    kind: Kind,
    plugin: Any,
    *,
    options: dict[str, Any] | None,
    capability: str | None,
) -> Any:
    """Create a plugin from `registry`; see :func:`fsboundary.plugins.create`."""
    check_choice("kind", kind, KINDS)
    pixels = needs_pixels(kind, {capability})
    wanted = interface_of(kind, pixels=pixels)
    if not isinstance(plugin, str):
        if isinstance(plugin, type):
            got, fix = f"the class {plugin.__name__}", f"call it: {plugin.__name__}()"
            raise ArgumentError(kind, got, f"an instance of {wanted.__name__}", fix)
        class_name, name = type(plugin).__name__, wanted.__name__
        fix = f"derive {class_name} from fsboundary.{name}, or pass a plugin's name"
        check_instance(kind, plugin, wanted, f"a name (str) or an instance of {name}", fix)
        if options:
            got = f"{sorted(options)} together with an instance of {class_name}"
            fix = f"pass them to {class_name}(...)"
            raise ArgumentError("options", got, "options with a plugin's name only", fix)
        return plugin
    entry = registry.find(kind, plugin, pixels=pixels)
    if entry is None or not _capable(entry, capability):
        raise _unknown(registry, kind, plugin, capability)
    return _make(entry, wanted, dict(options or {}))


def _capable(entry: Entry, capability: str | None) -> bool:
    return capability is None or capability in entry.registration.capabilities


def _unknown(registry: Registry, kind: Kind, name: str, capability: str | None) -> ArgumentError:
    """Return an error with the available names, the closest one, and rejected plugins."""
    ready = registry.ready(kind)
    same_home = [e for e in ready if e.key[1] == needs_pixels(kind, {capability})]
    available = sorted(e.registration.name for e in same_home if _capable(e, capability))
    got = repr(name)
    if any(e.registration.name == name for e in ready):
        got += ", which lacks it" if capability else ", which works on images only"
    what = kind.replace("_", " ") + (f" with the capability {capability!r}" if capability else "")
    wanted = f"a {what}: {', '.join(available)}" if available else f"a {what}, but none is ready"
    close = get_close_matches(name, available, n=1)
    fixes = [f"use {close[0]!r}, the closest name" if close else "choose one that is available"]
    known = discovery.normalize_name(name)
    rejected = [info for info in registry.describe() if info.state == "rejected"]
    named = [
        i for i in rejected if known in map(discovery.normalize_name, (i.name, i.distribution))
    ]
    for info in named:
        origin = f" of {info.distribution} {info.version}" if info.distribution else ""
        fixes.append(f"plugin {info.name!r}{origin} was rejected: {info.reason}")
    if len(rejected) > len(named):
        fixes.append("`fsboundary plugins` lists rejected plugins with their reasons")
    return ArgumentError(kind, got, wanted, "; ".join(fixes))


def _make(entry: Entry, wanted: type[Any], options: dict[str, Any]) -> Any:
    changed: list[str] = []
    built_in = entry.distribution == BUILTIN.distribution
    with contextlib.nullcontext() if built_in else restored(changed):
        made = _call_factory(entry, options)
    if not isinstance(made, wanted):
        raise PluginError(
            f"plugin {entry.label} returned a {type(made).__name__}; wanted an instance of "
            f"fsboundary.{wanted.__name__}. Report it to the plugin's author"
        )
    if changed:
        warn_changed(f"plugin {entry.label}", changed)
    identity.remember(made, entry, options)
    return made


def _call_factory(entry: Entry, options: dict[str, Any]) -> Any:
    """Return what the factory makes, or raise; it is not called with options it does not take."""
    factory, label = entry.registration.factory, f"plugin {entry.label}"
    try:
        signature = inspect.signature(factory)
    except ValueError:
        signature = None  # of some compiled callables, which raise their own error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a lazy factory imports its module here
        raise PluginError(
            f"{label} could not be imported: {type(error).__name__}: {error}"
        ) from error
    if signature is not None:
        check_options("options", options, signature, label)
    try:
        return factory(**options)
    except (FsboundaryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # as in loading: foreign code may call sys.exit
        given = f" with options {options}" if options else ""
        raise PluginError(
            f"{label} could not be created{given}: {type(error).__name__}: {error}"
        ) from error
