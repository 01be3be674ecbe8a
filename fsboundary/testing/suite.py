"""Conformance suites: named checks of one plugin, run with or without pytest."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar, final

from fsboundary.core.errors import ArgumentError

S = TypeVar("S")

NO_EXPECTED_FAILURES: Mapping[str, str] = MappingProxyType({})
"""No expected failures."""


class CheckFailure(AssertionError):
    """A plugin violates its contract; the message says which part, and where.

    Examples
    --------
    >>> from fsboundary.testing import CheckFailure, Suite
    >>> def adds_up(total):
    ...     '''The sum is ten.'''
    ...     if total != 10:
    ...         raise CheckFailure(f"got {total}")
    >>> [one.message for one in Suite([adds_up], lambda: 9, {}).outcomes()]
    ['got 9']
    """


def require(condition: object, message: str) -> None:
    """Raise :class:`CheckFailure` with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailure(message)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of one check.

    Attributes
    ----------
    check : str
        Name of the check.
    about : str
        Requirement that it checks, one line.
    passed : bool
        Whether the result is the expected one: a check listed in ``expected_failures`` passes by
        failing.
    message : str
        Reason for the failure or for the expected failure; empty otherwise.

    Examples
    --------
    >>> from fsboundary.testing import check_plugin
    >>> _, outcomes = next(check_plugin("closed_form"))
    >>> next(outcomes).passed
    True
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
        Functions of a subject that raise where the contract is violated. The function's name is
        the check's name, which is stable across versions; its docstring states the requirement.
    subject : callable
        Factory of the object that is checked, called anew for each check.
    expected_failures : mapping of str to str
        Map from check name to the reason why the plugin fails it. Strict: passing is a failure.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names an unknown check.

    Examples
    --------
    >>> from fsboundary.testing import CheckFailure, Suite
    >>> def adds_up(total):
    ...     '''The sum is ten.'''
    ...     if total != 10:
    ...         raise CheckFailure(f"got {total}")
    >>> [(one.check, one.passed) for one in Suite([adds_up], lambda: 10, {}).outcomes()]
    [('adds_up', True)]
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
                "correct the name, or remove it if the check no longer exists",
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
            The plugin violates its contract, or passes a check that it was expected to fail.
        Exception
            The plugin raised it.
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
                f"({self._expected[name]}): remove it"
            )

    def outcomes(self) -> Iterator[Outcome]:
        """Run every check and yield its outcome, one by one."""
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
            pytest is not installed; :meth:`outcomes` does not need it.
        """
        # by name: pytest is not a dependency of the package
        pytest: Any = importlib.import_module("pytest")

        def test_conformance(check: str) -> None:
            self.run(check)

        marked: Callable[[str], None] = pytest.mark.parametrize("check", self.names)(
            test_conformance
        )
        return marked
