"""What is loaded: one table of ready plugins, one list of those set aside."""

from __future__ import annotations

import importlib
import threading
from typing import Any, final

from fsboundary._version import __version__
from fsboundary.plugins.interfaces import API_VERSION
from fsboundary.plugins.registry import discovery
from fsboundary.plugins.registry.info import Entry, Kind, PluginInfo
from fsboundary.plugins.registry.loading import SetAside, load, new_manager

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
