"""Mutation tests: the suites catch each faulty plugin, by the checks listed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fsboundary.core.errors import ArgumentError
from fsboundary.testing import CheckFailure, Suite, hull_solver_tests
from fsboundary.testing.checks.extractors import extractor_suite
from fsboundary.testing.checks.flips import flip_suite
from fsboundary.testing.checks.hulls import hull_suite
from fsboundary.testing.checks.images import image_suite
from support.plugins.bad_plugins import (
    EXTRACTORS,
    FINDERS,
    HULLS,
    IMAGES,
    Extractor,
    Finder,
    Images,
    Solver,
)

CASES = [
    *((hull_suite, factory, names) for factory, names in HULLS.items()),
    *((flip_suite, factory, names) for factory, names in FINDERS.items()),
    *((image_suite, factory, names) for factory, names in IMAGES.items()),
    *((extractor_suite, factory, names) for factory, names in EXTRACTORS.items()),
]


@pytest.fixture(autouse=True)
def process_restored() -> Iterator[None]:
    """Restore the state that the bad plugins change in this process."""
    dtype, threads, state = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_rng_state(),
    )
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    np.random.seed(0)


def failed(suite: Suite[Any], names: set[str]) -> set[str]:
    """Return those of the checks `names` that fail."""
    found = set()
    for name in names:
        try:
            suite.run(name)
        except Exception:
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("suite", "factory", "names"), CASES, ids=[factory.__name__ for _, factory, _ in CASES]
)
def test_bad_plugin_is_caught(
    suite: Callable[..., Suite[Any]], factory: Callable[[], Any], names: set[str]
) -> None:
    assert failed(suite(factory), names) == names


GOOD = [
    (hull_suite, Solver),
    (flip_suite, Finder),
    (image_suite, Images),
    (extractor_suite, Extractor),
]


@pytest.mark.parametrize(("suite", "factory"), GOOD)
def test_their_correct_base_classes_pass(
    suite: Callable[..., Suite[Any]], factory: Callable[[], Any]
) -> None:
    outcomes = list(suite(factory).outcomes())
    assert [o for o in outcomes if not o.passed] == []
    assert [o.check for o in outcomes] == list(suite(factory).names)
    assert all(o.about.endswith(".") for o in outcomes)


def test_expected_failure_must_fail() -> None:
    suite = hull_suite(Solver, {"no_rows": "it was so once"})
    with pytest.raises(CheckFailure, match=r"no_rows passed, .*it was so once.*: remove it"):
        suite.run("no_rows")
    [outcome] = [o for o in suite.outcomes() if not o.passed]
    assert outcome.check == "no_rows"


def test_expected_failure_that_fails_passes() -> None:
    [bad] = [f for f in HULLS if f.__name__ == "IgnoresExclude"]
    reason = "it cannot leave points out"
    suite = hull_suite(bad, {"excluded_points_do_not_count": reason})
    suite.run("excluded_points_do_not_count")
    outcomes = {o.check: o for o in suite.outcomes()}
    assert all(o.passed for o in outcomes.values())
    assert outcomes["excluded_points_do_not_count"].message == reason


def test_unknown_expected_failure_is_rejected() -> None:
    with pytest.raises(ArgumentError, match=r"got 'no_row'; wanted names of checks: factory_"):
        hull_solver_tests(Solver, {"no_row": "misspelt"})
