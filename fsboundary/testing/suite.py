"""A conformance suite: named checks of one plugin, run by pytest or without it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar, final

from fsboundary.core.errors import ArgumentError

S = TypeVar("S")

NONE: Mapping[str, str] = MappingProxyType({})
"""No expected failures."""


class CheckFailure(AssertionError):
    """A plugin breaks its contract; the message says which part of it, and where."""


def require(condition: object, message: str) -> None:
    """Raise :class:`CheckFailure` with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailure(message)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one check.

    Attributes
    ----------
    check : str
        Its name.
    about : str
        What it holds the plugin to, one line.
    passed : bool
        As expected: a check listed in ``expected_failures`` passes by failing.
    message : str
        Why it failed, or why it was expected to; empty where nothing is to be said.
    """

    check: str
    about: str
    passed: bool
    message: str


@final
class Suite(Generic[S]):
    """Named checks of one plugin.

    Parameters
    ----------
    checks : iterable of callable
        Each takes a subject and raises where the contract is broken. Its name is the check's
        name, which stays the same from version to version; its docstring says what is held.
    subject : callable
        Makes what the checks ask, anew for each.
    expected_failures : mapping of str to str
        Check name to the reason why the plugin fails it. Strict: one that passes is a failure.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """

    def __init__(
        self,
        checks: Iterable[Callable[[S], None]],
        subject: Callable[[], S],
        expected_failures: Mapping[str, str],
    ) -> None:
        self._checks = {check.__name__: check for check in checks}
        self._subject = subject
        self._expected = dict(expected_failures)
        unknown = sorted(self._expected.keys() - self._checks.keys())
        if unknown:
            raise ArgumentError(
                "expected_failures",
                ", ".join(map(repr, unknown)),
                f"names of checks: {', '.join(self._checks)}",
                "correct the name, or take it out if the check is gone",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The checks' names, in the order in which they run."""
        return tuple(self._checks)

    def run(self, name: str) -> None:
        """Run one check.

        Raises
        ------
        CheckFailure
            The plugin breaks its contract, or passes a check that it was expected to fail.
        Exception
            Whatever the plugin raised.
        """
        try:
            self._checks[name](self._subject())
        except Exception:
            if name not in self._expected:
                raise
            return
        if name in self._expected:
            raise CheckFailure(
                f"{name} passed, but expected_failures says that it fails "
                f"({self._expected[name]}): take it out"
            )

    def outcomes(self) -> Iterator[Outcome]:
        """Run every check and yield what came of it, one by one."""
        for name, check in self._checks.items():
            about = (check.__doc__ or "").strip().splitlines()[0]
            message, passed = self._expected.get(name, ""), True
            try:
                self.run(name)
            except Exception as error:
                label = "" if isinstance(error, CheckFailure) else f"{type(error).__name__}: "
                message, passed = f"{label}{error}", False
            yield Outcome(check=name, about=about, passed=passed, message=message)

    def pytest_function(self) -> Callable[[str], None]:
        """Return a test function for pytest, parametrised by the checks' names.

        Raises
        ------
        ModuleNotFoundError
            pytest is not installed; :meth:`outcomes` does without it.
        """
        # by name: pytest is no dependency of the package
        pytest: Any = importlib.import_module("pytest")

        def test_conformance(check: str) -> None:
            self.run(check)

        marked: Callable[[str], None] = pytest.mark.parametrize("check", self.names)(
            test_conformance
        )
        return marked
