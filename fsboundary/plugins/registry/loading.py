"""Keep what a plugin prints while it loads out of the program's output.

Load one plugin: import, check its hooks, call each by itself, check what they return.

What is loaded: one table of ready plugins, one list of those set aside.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, TextIO, final

import pluggy

from fsboundary._version import __version__
from fsboundary.plugins import hookspecs
from fsboundary.plugins.interfaces import API_VERSION, Registration
from fsboundary.plugins.registry import discovery
from fsboundary.plugins.registry.info import HOOKS, Entry, Kind, PluginInfo


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


BUILTIN = discovery.Source(
    distribution="fsboundary",
    version=__version__,
    name="builtin",
    value="fsboundary.builtin.plugin",
)


@final
class Registry:
    """Loads plugins when a question needs them; safe to use from several threads.

    The built-in plugin is asked first, then the others in the order of their distributions'
    names, and only until one answers. A name is kept by the first that registers it, so the
    answer does not depend on how much was loaded before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget what was loaded."""
        with self._lock:
            self._manager = new_manager()
            self._ready: dict[tuple[Kind, bool, str], Entry] = {}
            self._aside: list[PluginInfo] = []
            self._queue: list[discovery.Source] | None = None
            self._builtin_loaded = False

    def find(self, kind: Kind, name: str, *, pixels: bool) -> Entry | None:
        """Return the plugin called `name`, loading no more than is needed to find it."""
        key = (kind, pixels, name)
        with self._lock:
            self._load_builtin()
            while key not in self._ready and self._load_next():
                pass
            return self._ready.get(key)

    def ready(self, kind: Kind) -> list[Entry]:
        """Load everything and return what is ready of `kind`."""
        with self._lock:
            self._load_all()
            return [entry for entry in self._ready.values() if entry.kind == kind]

    def describe(self) -> list[PluginInfo]:
        """Load everything and list it."""
        with self._lock:
            self._load_all()
            return sorted([*(e.info() for e in self._ready.values()), *self._aside], key=_order)

    def _load_all(self) -> None:
        self._load_builtin()
        while self._load_next():
            pass

    def _load_builtin(self) -> None:
        if not self._builtin_loaded:
            # Marked before loading: a plugin that asks the registry while it is being loaded
            # sees what is there so far, and is not loaded twice.
            self._builtin_loaded = True
            try:
                self._load(BUILTIN)
            except BaseException:
                self._builtin_loaded = False
                raise

    def _load_next(self) -> bool:
        if self._queue is None:
            self._queue = self._choose()
        if not self._queue:
            return False
        source = self._queue.pop(0)
        try:
            self._load(source)
        except BaseException:
            # Interrupted by the user: the next question loads it.
            self._queue.insert(0, source)
            raise
        return True

    def _choose(self) -> list[discovery.Source]:
        """Return the plugins to load; set the others aside without importing them."""
        sources, names = discovery.installed(), discovery.wanted()
        if names is None:
            return sources
        listed = {discovery.normalized(name) for name in names}
        chosen = []
        for source in sources:
            if source.names & listed:
                chosen.append(source)
            else:
                self._set_aside(source, f"not listed in {discovery.VARIABLE}")
        known = frozenset[str]().union(BUILTIN.names, *(source.names for source in sources))
        for name in names:
            if discovery.normalized(name) not in known:
                reason = f"not installed, but listed in {discovery.VARIABLE}"
                absent = discovery.Source(distribution="", version="", name=name, value="")
                self._set_aside(absent, reason)
        return chosen

    def _load(self, source: discovery.Source) -> None:
        def importer() -> Any:
            return importlib.import_module(source.value) if source is BUILTIN else source.load()

        if source.problem:
            self._set_aside(source, source.problem)
            return
        unique = f"{source.distribution}:{source.name}"
        try:
            registrations, remark = load(self._manager, unique, importer)
        except SetAside as error:
            self._set_aside(source, str(error))
            return
        for kind, registration in registrations:
            entry = Entry(
                kind=kind,
                registration=registration,
                distribution=source.distribution,
                version=source.version,
                remark=remark,
            )
            reason = self._objection(entry)
            if reason:
                self._aside.append(entry.info("set aside", reason))
            else:
                self._ready[entry.key] = entry

    def _objection(self, entry: Entry) -> str:
        needed = entry.registration.api_version
        if needed > API_VERSION:
            return f"needs a newer API: {needed}, this fsboundary has {API_VERSION}"
        other = self._ready.get(entry.key)
        if other is None:
            return ""
        if other.distribution == entry.distribution:
            return f"{entry.distribution} registers the name twice"
        return (
            f"name clash: {entry.distribution} registers a {entry.kind} called "
            f"{entry.registration.name!r}, but {other.distribution} has that name"
        )

    def _set_aside(self, source: discovery.Source, reason: str) -> None:
        self._aside.append(
            PluginInfo(
                name=source.name,
                kind="",
                distribution=source.distribution,
                version=source.version,
                state="set aside",
                reason=reason,
            )
        )


def _order(info: PluginInfo) -> tuple[bool, str, str, str]:
    built_in = info.distribution == BUILTIN.distribution
    return not built_in, discovery.normalized(info.distribution), info.kind, info.name
