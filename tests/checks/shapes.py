"""The run-time type checker of the shape test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as for mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check `function` at run time, unless it returns Self, which carries no shape.

    beartype understands Self only where it decorates the class, and jaxtyping's import hook
    decorates functions.
    """
    try:
        return beartype(conf=CONFIG)(function)
    except BeartypeDecorHintPep673Exception:
        return function
