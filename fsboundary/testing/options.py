"""Checks of a plugin's constructor that every kind shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsboundary.plugins import identify
from fsboundary.testing.suite import require


def made_by(factory: Callable[..., Any], wanted: type[Any]) -> Any:
    """Return what `factory` makes without options, an instance of `wanted`."""
    made = factory()
    kind = type(made).__name__
    require(isinstance(made, wanted), f"the factory made a {kind}; wanted a {wanted.__name__}")
    return made


def check_repr(plugin: Any) -> None:
    """Require that a plugin's repr makes it again, and tells other options apart.

    The core keeps prepared states by repr, and reports print it.
    """
    kind, text = type(plugin), repr(plugin)
    try:
        again = eval(text, {kind.__name__: kind})
    except Exception as error:
        require(False, f"repr {text} does not make it again: {type(error).__name__}: {error}")
    require(repr(again) == text, f"repr {text} makes another: {again!r}")
    options = identify(plugin).options
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            other = repr(kind(**{**options, name: 2 * value + 1}))
        except Exception:
            continue  # the constructor refuses the other value
        require(other != text, f"repr {text} does not tell the option {name!r}")
