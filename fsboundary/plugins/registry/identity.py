"""Which plugin answered: name, distribution, version, options; for reports."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import weakref
from typing import Any, NamedTuple, final

from fsboundary._version import __version__
from fsboundary.plugins.registry.info import Entry


@final
class Identity(NamedTuple):
    """What a report prints of a plugin.

    Attributes
    ----------
    name : str
        The registered name; the class's name where the user passed an instance.
    distribution, version : str
        Empty where the class comes from no installed package.
    options : dict
        Constructor arguments by name, defaults included where the instance keeps them.
    """

    name: str
    distribution: str
    version: str
    options: dict[str, Any]


# By id, not by the object itself: instances may compare equal, or be unhashable.
_made: dict[int, tuple[weakref.ref[Any], Identity]] = {}


def remember(instance: Any, entry: Entry, options: dict[str, Any]) -> None:
    """Note which plugin made `instance`."""
    key, made = id(instance), _made  # a module's names are None when the interpreter shuts down

    def forget(reference: weakref.ref[Any]) -> None:
        if key in made and made[key][0] is reference:
            del made[key]

    known = Identity(
        entry.registration.name,
        entry.distribution,
        entry.version,
        {**_constructor_arguments(instance), **options},
    )
    try:
        reference = weakref.ref(instance, forget)
    except TypeError:
        return  # a class with slots and no __weakref__: identify() falls back on its class
    _made[key] = (reference, known)


def identify(instance: Any) -> Identity:
    """Say which plugin an instance is.

    Parameters
    ----------
    instance : object
        Made by :func:`fsboundary.plugins.create`, or by the user.

    Returns
    -------
    Identity
        ``(name, distribution, version, options)``.
    """
    reference, known = _made.get(id(instance), (None, None))
    if reference is not None and known is not None and reference() is instance:
        return known
    distribution, version = _home(type(instance).__module__.partition(".")[0])
    name = type(instance).__name__
    return Identity(name, distribution, version, _constructor_arguments(instance))


def _home(package: str) -> tuple[str, str]:
    if package == "fsboundary":
        return "fsboundary", __version__
    names = importlib.metadata.packages_distributions().get(package)
    return (names[0], importlib.metadata.version(names[0])) if names else ("", "")


def _constructor_arguments(instance: Any) -> dict[str, Any]:
    """Read constructor arguments back from attributes of the same name, as scikit-learn does."""
    try:
        parameters = inspect.signature(type(instance)).parameters
    except (TypeError, ValueError):
        return {}  # compiled classes may have no signature
    found = {}
    for name in parameters:
        for attribute in (f"_{name}", name):
            # A foreign property may raise anything; a report must not fail for want of an option.
            with contextlib.suppress(Exception):
                found[name] = getattr(instance, attribute)
    return found
