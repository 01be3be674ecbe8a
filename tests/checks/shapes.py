"""The run-time type checker of the shape test.

Calls inside the package are checked. A call by a test is not, if its arguments are malformed: what
the function itself says of them is then the subject of the test.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation, BeartypeDecorHintPep673Exception

CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as for mypy

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
            if _caller().startswith("fsboundary"):
                raise
            return None  # jaxtyping checks copies of the signature, and ignores what they return

    return call


def _caller() -> str:
    """Return the module that called the checked function, past decorators and checkers."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        generated = frame.f_code.co_filename.startswith("<")
        if not (generated or name.startswith(_BETWEEN) or name in _DECORATORS):
            return str(name)
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return ""
