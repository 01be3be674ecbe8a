"""The run-time type checker of the shape test.

All calls are checked, except those by a test whose arguments are malformed: what the function
itself says of them is then the subject of the test.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation, BeartypeDecorHintPep673Exception

CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as for mypy

TESTS = Path(__file__).parents[1]

_BETWEEN = ("jaxtyping", "beartype", "checks.", "functools", "contextlib")
_DECORATORS = ("fsboundary.modes", "fsboundary.models.calling")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check `function` at run time, unless it returns Self, which carries no shape.

    beartype understands Self only where it decorates the class, and jaxtyping's import hook
    decorates functions.
    """
    try:
        checked = beartype(conf=CONFIG)(function)
    except BeartypeDecorHintPep673Exception:
        return function

    @functools.wraps(checked)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except BeartypeCallHintViolation:
            if not _called_by_a_test():
                raise
            return None  # jaxtyping checks copies of the signature, and ignores what they return

    return call


def _called_by_a_test() -> bool:
    """Return whether a test called the checked function, past decorators and checkers."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        generated = frame.f_code.co_filename.startswith("<")
        if not (generated or name.startswith(_BETWEEN) or name in _DECORATORS):
            return TESTS in Path(frame.f_code.co_filename).parents
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return False
