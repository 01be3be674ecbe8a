"""Discovery of installed plugins and of the user's selection; nothing is imported here."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from dataclasses import dataclass
from typing import Any, final

GROUP = "fsboundary"
VARIABLE = "FSBOUNDARY_PLUGINS"


def normalize_name(name: str) -> str:
    """Return a distribution's name in the form in which packaging tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Origin of a plugin: a distribution and one of its entry points."""

    distribution: str
    version: str
    name: str
    value: str
    problem: str = ""

    def load(self) -> Any:
        """Import the plugin. Raises whatever its code raises."""
        point = importlib.metadata.EntryPoint(name=self.name, value=self.value, group=GROUP)
        return point.load()

    @property
    def names(self) -> frozenset[str]:
        """The names by which ``FSBOUNDARY_PLUGINS`` can select it."""
        return frozenset({normalize_name(self.distribution), normalize_name(self.name)})


def installed_plugins() -> list[Source]:
    """Return the installed plugins, sorted by distribution and entry point.

    Distributions are read one by one, because a malformed one would make
    ``importlib.metadata.entry_points`` fail for all.
    """
    by_name: dict[str, list[Source]] = {}
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("entry_points.txt")
        if not text or f"[{GROUP}]" not in text:
            continue
        sources = _sources(distribution)
        # Python imports the first on the path.
        by_name.setdefault(normalize_name(sources[0].distribution), sources)
    return [source for name in sorted(by_name) for source in by_name[name]]


def _sources(distribution: importlib.metadata.Distribution) -> list[Source]:
    name, version = "(unnamed)", ""
    try:
        name, version = distribution.metadata["Name"] or name, distribution.version or version
        points = sorted(distribution.entry_points.select(group=GROUP), key=lambda p: p.name)
        return [
            Source(distribution=name, version=version, name=p.name, value=p.value) for p in points
        ]
    except Exception as error:
        problem = f"its installed metadata cannot be read: {type(error).__name__}: {error}"
        return [Source(distribution=name, version=version, name=name, value="", problem=problem)]


def requested_names() -> list[str] | None:
    """Return the names listed in ``FSBOUNDARY_PLUGINS``; None if it is not set."""
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip()]
