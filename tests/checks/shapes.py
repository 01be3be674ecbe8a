"""The run-time type checker of the shape test.

A function may be called with malformed arguments if it refuses them itself, as public functions do.
So arguments are checked when it returns, together with what it returns. If it returns all the same,
only a test may have passed them: how the function treats them is then the subject of the test.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

# beartype draws the item of a list that it checks: not from the generator that a plugin must leave
with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype
    from beartype.roar import BeartypeCallHintParamViolation, BeartypeDecorHintPep673Exception

CONFIG = BeartypeConf(is_pep484_tower=True)  # an int is a float, as for mypy

TESTS = Path(__file__).parents[1]

_BETWEEN = ("sklearn.", "jaxtyping", "beartype", "checks.", "functools", "contextlib")
_DECORATORS = ("fsboundary.modes", "fsboundary.models.calling", "fsboundary.threads")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a signature at run time.

    jaxtyping passes two copies of the signature of each function, without its body. It calls the
    first with the arguments before the function runs; and the second, which has one more argument,
    with the arguments and the result afterwards.
    """
    if function.__module__.startswith("fsboundary.cli"):
        return function  # takes no array, and typer passes another context than its type says
    if function.__module__.startswith("fsboundary.sklearn.") and function.__name__ == "__init__":
        return function  # constructors of scikit-learn take anything, and fit checks it
    before = not any(name.startswith("ret") for name in _keyword_only(function))
    try:
        checked = beartype(conf=CONFIG)(function)
    except BeartypeDecorHintPep673Exception:
        # Self is understood only where beartype decorates the class, and it carries no shape
        function.__annotations__["return"] = Any
        checked = beartype(conf=CONFIG)(function)

    @functools.wraps(checked)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except BeartypeCallHintParamViolation:
            if not (before or _called_by_a_test()):
                raise
            return None  # jaxtyping ignores what these copies return
        except Exception as error:
            from fsboundary.core.errors import HeadError  # here: its import is checked by this file

            if not isinstance(error, HeadError):
                raise
            return None  # a protocol reads `head`, and this model has none: no matter of shapes

    return call


def _keyword_only(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    first = code.co_argcount
    return code.co_varnames[first : first + code.co_kwonlyargcount]


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
