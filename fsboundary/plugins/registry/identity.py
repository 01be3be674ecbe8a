"""Identity of a plugin instance for reports: name, distribution, version, options."""

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
    """Description of a plugin in reports.

    Attributes
    ----------
    name : str
        Registered name; the class's name if the user passed an instance.
    distribution, version : str
        Installed package of the class; empty if there is none.
    options : dict
        Constructor arguments by name, including defaults that the instance stores.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> solver = fsb.plugins.create("hull_solver", "active_set")
    >>> fsb.plugins.identify(solver)._fields
    ('name', 'distribution', 'version', 'options')
    """

    name: str
    distribution: str
    version: str
    options: dict[str, Any]


# By id, not by the object itself: instances may compare equal, or be unhashable.
_identities: dict[int, tuple[weakref.ref[Any], Identity]] = {}


def remember(instance: Any, entry: Entry, options: dict[str, Any]) -> None:
    """Record which plugin created `instance`."""
    key, identities = (
        id(instance),
        _identities,
    )  # a module's names are None when the interpreter shuts down

    def forget(reference: weakref.ref[Any]) -> None:
        if key in identities and identities[key][0] is reference:
            del identities[key]

    known = Identity(
        entry.registration.name,
        entry.distribution,
        entry.version,
        {**_constructor_arguments(instance), **options},
    )
    try:
        reference = weakref.ref(instance, forget)
    except TypeError:
        return  # a class with slots and no __weakref__: identify() uses its class instead
    _identities[key] = (reference, known)


def identify(instance: Any) -> Identity:
    """Return the identity of a plugin instance.

    Parameters
    ----------
    instance : object
        Plugin created by :func:`fsboundary.plugins.create` or by the user.

    Returns
    -------
    Identity
        ``(name, distribution, version, options)``.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> finder = fsb.plugins.create("boundary_finder", "dual_newton")
    >>> fsb.plugins.identify(finder).name
    'dual_newton'
    """
    reference, known = _identities.get(id(instance), (None, None))
    if reference is not None and known is not None and reference() is instance:
        return known
    distribution, version = _distribution_of(type(instance).__module__.partition(".")[0])
    name = type(instance).__name__
    return Identity(name, distribution, version, _constructor_arguments(instance))


def _distribution_of(package: str) -> tuple[str, str]:
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
    arguments = {}
    for name in parameters:
        for attribute in (f"_{name}", name):
            # A method of the same name is not the argument, such as `head` of an extractor.
            method = inspect.getattr_static(type(instance), attribute, None)
            if inspect.isroutine(method) or isinstance(method, staticmethod | classmethod):
                continue
            # A foreign property may raise anything; a missing option must not break a report.
            with contextlib.suppress(Exception):
                arguments[name] = getattr(instance, attribute)
    return arguments
