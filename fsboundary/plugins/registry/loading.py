"""Isolated loading of plugins, and the registry of ready and rejected ones.

Loading imports a plugin, checks its hooks, calls each separately and checks what it returns. What a
plugin prints meanwhile is kept out of the program's output, and torch's modes are put right.
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
from typing import Any, final

import pluggy

from fsboundary._version import __version__
from fsboundary.plugins import hookspecs
from fsboundary.plugins.grading.calls import restored
from fsboundary.plugins.interfaces import API_VERSION, Registration
from fsboundary.plugins.registry import discovery
from fsboundary.plugins.registry.info import HOOKS, Entry, Kind, PluginInfo


@final
class _Capture:
    """Replacement of ``sys.stdout`` that captures the text of one thread and forwards all other.

    A plugin may keep the stream (a logging handler does), so it forwards everything once it is
    closed. ``sys.stdout`` may be any object that can write text, so its type is not stated.
    """

    def __init__(self, stream: Any, parts: list[str]) -> None:
        self._stream, self._parts = stream, parts
        self.owner: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        """Write as text streams do."""
        if threading.get_ident() != self.owner:
            written: int = self._stream.write(text)
            return written
        self._parts.append(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write as text streams do."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def capture_stdout(parts: list[str]) -> Iterator[None]:
    """Append what this thread prints to `parts`; other threads print as before."""
    capture: Any = _Capture(sys.stdout, parts)
    try:
        with contextlib.redirect_stdout(capture):
            yield
    finally:
        capture.owner = None


SLOW = 2.0
"""A plugin that takes longer to load than this many seconds gets a remark."""


class PluginRejected(Exception):
    """A plugin cannot be used; the message is the reason shown to users."""


def make_manager() -> pluggy.PluginManager:
    """Return a plugin manager with the four hook specifications."""
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
        Manager that the plugin is registered with, unless it is rejected.
    name : str
        Unique name among the plugins of `manager`.
    importer : callable
        Function that imports and returns the plugin.

    Raises
    ------
    PluginRejected
        The plugin failed in any way: plugins also call ``sys.exit`` or raise the
        ``BaseException`` of a foreign runtime. Only ``KeyboardInterrupt`` is re-raised.
    """
    printed: list[str] = []
    changed: list[str] = []
    started = time.perf_counter()
    try:
        with capture_stdout(printed), restored(changed):
            plugin = _run_plugin_code("could not be imported", importer)
            try:
                registrations = _register(manager, name, plugin)
            except BaseException:
                # pluggy may keep a plugin that it rejected.
                if manager.has_plugin(name):
                    manager.unregister(name=name)
                raise
    except PluginRejected as error:
        raise PluginRejected(
            "; ".join(filter(None, [str(error), *_remarks(printed, changed)]))
        ) from error
    seconds = time.perf_counter() - started
    slow = f"took {seconds:.1f} s to load" if seconds > SLOW else ""
    return registrations, "; ".join(filter(None, [*_remarks(printed, changed), slow]))


def _remarks(printed: list[str], changed: list[str]) -> list[str]:
    text = " ".join("".join(printed).split())
    return [
        f"printed while loading: {_shorten(text, 60)!r}" if text else "",
        f"changed while loading, and restored: {', '.join(changed)}" if changed else "",
    ]


def _shorten(text: str, width: int = 300) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _run_plugin_code(what: str, call: Callable[[], Any]) -> Any:
    """Run a plugin's own code; turn whatever it raises into a PluginRejected."""
    try:
        return call()
    except (KeyboardInterrupt, PluginRejected):
        raise
    except BaseException as error:
        detail = _shorten(" ".join(str(error).split()))
        raise PluginRejected(f"{what}: {type(error).__name__}: {detail}".rstrip(": ")) from error


def _register(
    manager: pluggy.PluginManager, name: str, plugin: Any
) -> list[tuple[Kind, Registration]]:
    _run_plugin_code("could not be registered", partial(manager.register, plugin, name))
    registrations: list[tuple[Kind, Registration]] = []
    for hook, implementation in _implementations(manager, plugin):
        kind = HOOKS[hook]
        returned = _run_plugin_code(f"{hook} failed", partial(_call, implementation.function))
        check = partial(_as_registration, hook)
        registrations.extend(
            (kind, _run_plugin_code(f"{hook} failed", partial(check, item))) for item in returned
        )
    if not registrations:
        raise PluginRejected("registered nothing")
    return registrations


def _implementations(
    manager: pluggy.PluginManager, plugin: Any
) -> list[tuple[str, pluggy.HookImpl]]:
    """Return the plugin's hook functions by hook, after checking their names."""
    implementations = []
    for caller in manager.get_hookcallers(plugin) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            if caller.name in HOOKS:
                implementations.append((caller.name, implementation))
            elif not implementation.optionalhook:
                raise PluginRejected(f"no hook is called {caller.name!r}{_suggest(caller.name)}")
    marked = {hook for hook, _ in implementations}
    for hook in sorted(HOOKS.keys() - marked):
        if callable(_run_plugin_code(f"{hook} failed", partial(getattr, plugin, hook, None))):
            raise PluginRejected(f"{hook} is not marked with @fsboundary.hookimpl")
    for hook, implementation in implementations:
        if implementation.hookwrapper or implementation.wrapper:
            raise PluginRejected(f"{hook} is a hook wrapper; wanted a plain function")
    return sorted(implementations, key=lambda pair: pair[0])


def _suggest(name: str) -> str:
    close = get_close_matches(name, HOOKS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; hooks are {', '.join(sorted(HOOKS))}"


def _call(function: Callable[[], Any]) -> list[Any]:
    returned = function()
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes):
        raise PluginRejected(
            f"a hook returned {type(returned).__name__}; wanted a list of Registration"
        )
    return list(returned)


def _as_registration(hook: str, item: Any) -> Registration:
    """Return a copy of a registration whose fields have the right types, or reject the plugin."""
    if not isinstance(item, Registration):
        raise PluginRejected(f"{hook} returned a {type(item).__name__}; wanted a Registration")
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
            got = _shorten(repr(getattr(item, field)), 60)
            raise PluginRejected(f"{hook} returned a Registration with {field}={got}")
    # subclasses and mutable sets may change later
    return Registration(
        str(item.name), item.factory, str(item.summary), int(number), frozenset(names)
    )


BUILTIN = discovery.Source(
    distribution="fsboundary",
    version=__version__,
    name="builtin",
    value="fsboundary.builtin.plugin",
)


@final
class Registry:
    """Registry that loads plugins on demand; safe to use from several threads.

    The built-in plugin is searched first, then the others in the order of their distributions'
    names, only until the name is found. A name belongs to the first plugin that registers it, so
    the result does not depend on how much was loaded before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Unload everything."""
        with self._lock:
            self._manager = make_manager()
            self._ready: dict[tuple[Kind, bool, str], Entry] = {}
            self._rejected: list[PluginInfo] = []
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
            return sorted([*(e.info() for e in self._ready.values()), *self._rejected], key=_order)

    def _load_all(self) -> None:
        self._load_builtin()
        while self._load_next():
            pass

    def _load_builtin(self) -> None:
        if not self._builtin_loaded:
            # Set before loading: a plugin that uses the registry while it is being loaded sees
            # what is loaded so far, and is not loaded twice.
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
            # Interrupted by the user: the next request loads it.
            self._queue.insert(0, source)
            raise
        return True

    def _choose(self) -> list[discovery.Source]:
        """Return the plugins to load; reject the others without importing them."""
        sources, names = discovery.installed_plugins(), discovery.requested_names()
        if names is None:
            return sources
        listed = {discovery.normalize_name(name) for name in names}
        chosen = []
        for source in sources:
            if source.names & listed:
                chosen.append(source)
            else:
                self._reject(source, f"not listed in {discovery.VARIABLE}")
        known = frozenset[str]().union(BUILTIN.names, *(source.names for source in sources))
        for name in names:
            if discovery.normalize_name(name) not in known:
                reason = f"not installed, but listed in {discovery.VARIABLE}"
                absent = discovery.Source(distribution="", version="", name=name, value="")
                self._reject(absent, reason)
        return chosen

    def _load(self, source: discovery.Source) -> None:
        def importer() -> Any:
            return importlib.import_module(source.value) if source is BUILTIN else source.load()

        if source.problem:
            self._reject(source, source.problem)
            return
        unique = f"{source.distribution}:{source.name}"
        try:
            registrations, remark = load(self._manager, unique, importer)
        except PluginRejected as error:
            self._reject(source, str(error))
            return
        for kind, registration in registrations:
            entry = Entry(
                kind=kind,
                registration=registration,
                distribution=source.distribution,
                version=source.version,
                remark=remark,
            )
            reason = self._reason_to_reject(entry)
            if reason:
                self._rejected.append(entry.info("rejected", reason))
            else:
                self._ready[entry.key] = entry

    def _reason_to_reject(self, entry: Entry) -> str:
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

    def _reject(self, source: discovery.Source, reason: str) -> None:
        self._rejected.append(
            PluginInfo(
                name=source.name,
                kind="",
                distribution=source.distribution,
                version=source.version,
                state="rejected",
                reason=reason,
            )
        )


def _order(info: PluginInfo) -> tuple[bool, str, str, str]:
    built_in = info.distribution == BUILTIN.distribution
    return not built_in, discovery.normalize_name(info.distribution), info.kind, info.name
