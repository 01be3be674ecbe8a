"""Factories that import what they make when it is first made."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, final


@final
class _LazyFactory:
    """Calls ``module:attribute``, importing the module at the first call."""

    def __init__(self, target: str) -> None:
        self._module, _, self._attribute = target.partition(":")

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self._attribute)

    @property
    def __signature__(self) -> inspect.Signature:
        """The target's own, so that misspelt options are named before it is called."""
        return inspect.signature(self._load())

    def __call__(self, **options: Any) -> Any:
        return self._load()(**options)

    def __repr__(self) -> str:
        return f"lazy({f'{self._module}:{self._attribute}'!r})"


def lazy(target: str) -> _LazyFactory:
    """Return a factory for a registration that imports its class only when one is made.

    Parameters
    ----------
    target : str
        ``"package.module:Class"``.

    Examples
    --------
    >>> from fsboundary.plugins import lazy
    >>> lazy("fractions:Fraction")(numerator=3)
    Fraction(3, 1)
    """
    return _LazyFactory(target)
