"""The public objects: what a user may import, and what the reference documents."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

MODULES = (
    "",
    "analysis",
    "attr",
    "demo",
    "pixels",
    "plot",
    "plugins",
    "scores",
    "sklearn",
    "testing",
    "core.results",
)
"""The package, its public subpackages, and the results, which its functions return."""

FURTHER = (
    "banks.BankInfo",
    "core.errors.ReportWarning",
    "space.ZeroShotClassifier",
    "space.space_of",
)
"""Objects of other packages that public ones return, take or warn with."""

WITHOUT_DOCSTRING = {
    "__version__": "a string",
    "hookimpl": "a marker that pluggy makes",
    "plugins.Kind": "an alias of a type",
}
"""Public names that cannot have an example of their own, and why."""


def public_objects() -> dict[str, Any]:
    """Return every public object by its first name after ``fsboundary.``, modules left out."""
    names = [
        f"{module}.{name}" if module else name
        for module in MODULES
        for name in importlib.import_module(f"fsboundary.{module}".rstrip(".")).__all__
    ]
    found: dict[int, tuple[str, Any]] = {}
    for name in [*names, *FURTHER]:
        module, _, last = name.rpartition(".")
        value = getattr(importlib.import_module(f"fsboundary.{module}".rstrip(".")), last)
        if not inspect.ismodule(value) and name not in WITHOUT_DOCSTRING:
            found.setdefault(id(value), (name, value))
    return dict(found.values())
