"""The run-time type checker of the shape test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check `function` at run time, unless it returns Self, which carries no shape.

    beartype understands Self only where it decorates the class, and jaxtyping's import hook
    decorates functions.
    """
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function
