"""Keep what a plugin prints while it loads out of the program's output.

Load one plugin: import, check its hooks, call each by itself, check what they return.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, TextIO, final

import pluggy

from fsboundary.plugins import hookspecs
from fsboundary.plugins.interfaces import Registration
from fsboundary.plugins.registry.info import HOOKS, Kind


@final
class _Capture:
    """Stands in for ``sys.stdout``; keeps the text of one thread, and passes on all other.

    A plugin may keep the stream (a logging handler does), so it passes everything on once it is
    closed.
    """

    def __init__(self, stream: TextIO, parts: list[str]) -> None:
        self._stream, self._parts = stream, parts
        self.owner: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        """Write as text streams do."""
        if threading.get_ident() != self.owner:
            return self._stream.write(text)
        self._parts.append(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write as text streams do."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def captured_stdout(parts: list[str]) -> Iterator[None]:
    """Append what this thread prints to `parts`, while other threads print as before."""
    capture: Any = _Capture(sys.stdout, parts)
    try:
        with contextlib.redirect_stdout(capture):
            yield
    finally:
        capture.owner = None


SLOW = 2.0
"""A plugin that takes longer to load than this many seconds gets a remark."""


class SetAside(Exception):
    """Carries the reason why a plugin cannot be used, as users read it, to the store."""


def new_manager() -> pluggy.PluginManager:
    """Return a plugin manager that knows the three hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def load(
    manager: pluggy.PluginManager, name: str, importer: Callable[[], Any]
) -> tuple[list[tuple[Kind, Registration]], str]:
    """Load a plugin and return its registrations and a remark.

    Parameters
    ----------
    manager : pluggy.PluginManager
        Holds the plugin afterwards, unless it was set aside.
    name : str
        Unique among the plugins of `manager`.
    importer : callable
        Imports and returns the plugin.

    Raises
    ------
    SetAside
        With the reason, whatever went wrong: plugins also call ``sys.exit`` or raise the
        ``BaseException`` of a foreign runtime. Only ``KeyboardInterrupt`` passes.
    """
    printed: list[str] = []
    started = time.perf_counter()
    try:
        with captured_stdout(printed):
            plugin = _attempt("could not be imported", importer)
            try:
                registrations = _register(manager, name, plugin)
            except BaseException:
                # pluggy may keep a plugin that it rejected.
                if manager.has_plugin(name):
                    manager.unregister(name=name)
                raise
    except SetAside as error:
        raise SetAside("; ".join(filter(None, [str(error), _printed(printed)]))) from error
    seconds = time.perf_counter() - started
    slow = f"took {seconds:.1f} s to load" if seconds > SLOW else ""
    return registrations, "; ".join(filter(None, [_printed(printed), slow]))


def _printed(parts: list[str]) -> str:
    text = " ".join("".join(parts).split())
    return f"printed while loading: {_short(text, 60)!r}" if text else ""


def _short(text: str, width: int = 300) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _attempt(what: str, call: Callable[[], Any]) -> Any:
    """Run a plugin's own code; turn whatever it raises into a reason."""
    try:
        return call()
    except (KeyboardInterrupt, SetAside):
        raise
    except BaseException as error:
        detail = _short(" ".join(str(error).split()))
        raise SetAside(f"{what}: {type(error).__name__}: {detail}".rstrip(": ")) from error


def _register(
    manager: pluggy.PluginManager, name: str, plugin: Any
) -> list[tuple[Kind, Registration]]:
    _attempt("was rejected", partial(manager.register, plugin, name))
    found: list[tuple[Kind, Registration]] = []
    for hook, implementation in _implementations(manager, plugin):
        kind = HOOKS[hook]
        returned = _attempt(f"{hook} failed", partial(_call, implementation.function))
        found.extend((kind, _checked(hook, item)) for item in returned)
    if not found:
        raise SetAside("registered nothing")
    return found


def _implementations(
    manager: pluggy.PluginManager, plugin: Any
) -> list[tuple[str, pluggy.HookImpl]]:
    """Return the plugin's hook functions by hook, after checking their names."""
    found = []
    for caller in manager.get_hookcallers(plugin) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            if caller.name in HOOKS:
                found.append((caller.name, implementation))
            elif not implementation.optionalhook:
                raise SetAside(f"no hook is called {caller.name!r}{_suggest(caller.name)}")
    marked = {hook for hook, _ in found}
    for hook in sorted(HOOKS.keys() - marked):
        if callable(_attempt(f"{hook} failed", partial(getattr, plugin, hook, None))):
            raise SetAside(f"{hook} is not marked with @fsboundary.hookimpl")
    for hook, implementation in found:
        if implementation.hookwrapper or implementation.wrapper:
            raise SetAside(f"{hook} is a hook wrapper; wanted a plain function")
    return sorted(found, key=lambda pair: pair[0])


def _suggest(name: str) -> str:
    close = get_close_matches(name, HOOKS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; hooks are {', '.join(sorted(HOOKS))}"


def _call(function: Callable[[], Any]) -> list[Any]:
    returned = function()
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes):
        raise SetAside(f"a hook returned {type(returned).__name__}; wanted a list of Registration")
    return list(returned)


def _checked(hook: str, item: Any) -> Registration:
    """Return a registration whose fields have the right types, or set the plugin aside."""
    if not isinstance(item, Registration):
        raise SetAside(f"{hook} returned a {type(item).__name__}; wanted a Registration")
    number, names = item.api_version, item.capabilities
    wrong = {
        "name": not isinstance(item.name, str) or not item.name.strip(),
        "factory": not callable(item.factory),
        "summary": not isinstance(item.summary, str),
        "api_version": not isinstance(number, int) or isinstance(number, bool) or number < 1,
        "capabilities": not isinstance(names, frozenset | set)
        or not all(isinstance(name, str) for name in names),
    }
    for field, is_wrong in wrong.items():
        if is_wrong:
            got = _short(repr(getattr(item, field)), 60)
            raise SetAside(f"{hook} returned a Registration with {field}={got}")
    return item
