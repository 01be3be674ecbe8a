"""docs/plugins.md: every hook has a heading, its exact signature, and an example that passes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from fsboundary.plugins import hookspecs, interfaces
from fsboundary.plugins.registry.info import HOOKS, interface_of

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = {
    "test_least_squares",
    "test_hyperplane",
    "test_along_the_gradient",
    "test_penultimate",
    "test_at_the_image_only",
}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "plugins.md").read_text("utf-8")


def signature(function: Any) -> str:
    """Return ``def name(...) -> ...`` as it is written in the source."""
    return re.sub("[\"']", "", f"def {function.__name__}{inspect.signature(function)}")


def test_every_hook_has_a_heading_and_its_signature(page: str) -> None:
    assert set(HOOKS) == {name for name in vars(hookspecs) if name.startswith("register_")}
    for hook in HOOKS:
        [part] = re.findall(rf"^### {hook}$(.*?)(?=^###? |\Z)", page, re.MULTILINE | re.DOTALL)
        assert signature(getattr(hookspecs, hook)) in part
        assert "```python\n" in part


def test_every_method_of_every_interface_has_its_signature(page: str) -> None:
    plain = re.sub("[\"']", "", page)
    kinds = [interface_of(kind, pixels=False) for kind in HOOKS.values()]
    for kind in (*kinds, interface_of("boundary_finder", pixels=True)):
        assert f"fsboundary.{kind.__name__}`" in page
        methods = [f for f in vars(kind).values() if inspect.isfunction(f)]
        assert methods
        for method in methods:
            assert signature(method) in plain, f"{kind.__name__}.{method.__name__}"


def test_interfaces_are_those_of_the_hooks() -> None:
    found = {
        name
        for name, value in vars(interfaces).items()
        if inspect.isclass(value)
        and value.__module__ == interfaces.__name__
        and inspect.isabstract(value)
    }
    kinds = {interface_of(kind, pixels=False).__name__ for kind in HOOKS.values()}
    assert found == kinds | {"ImageBoundaryFinder"}


def test_examples_pass_their_own_suites(page: str) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for code in FENCE.findall(page):
        exec(compile(code, "docs/plugins.md", "exec"), namespace)
    tests = {name: value for name, value in namespace.items() if name.startswith("test_")}
    assert set(tests) == EXAMPLES
    for function in tests.values():
        [mark] = function.pytestmark
        assert mark.name == "parametrize"
        for check in mark.args[1]:
            function(check)
