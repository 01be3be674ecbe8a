"""SearchState has one owner: no other module of the image finders changes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsboundary.builtin.boundary_finders
import fsboundary.builtin.image_finders

STATE = "SearchState"
OWNER = "search_state.py"
PACKAGES = (fsboundary.builtin.image_finders, fsboundary.builtin.boundary_finders)
MODULES = sorted(
    path
    for package in PACKAGES
    for path in Path(package.__path__[0]).glob("*.py")
    if path.name != OWNER
)


def is_state_annotation(annotation: ast.expr | None) -> bool:
    return annotation is not None and STATE in {
        *(n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)),
        *(n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant)),
    }


def is_state_call(value: ast.expr | None) -> bool:
    return (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == STATE
    )


def pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield targets with their values, those of tuples one by one."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


def state_names(tree: ast.AST) -> set[str]:
    """Return the names and dotted names by which a module refers to the state or its tensors."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and is_state_annotation(node.annotation):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and is_state_annotation(node.annotation):
            names.add(ast.unparse(node.target))
    size = -1
    while len(names) > size:  # an alias of an alias
        size = len(names)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign):
                continue
            for target, value in pairs(node):
                alias = isinstance(value, ast.Name | ast.Attribute) and refers_to(value, names)
                if isinstance(target, ast.Name | ast.Attribute) and (alias or is_state_call(value)):
                    names.add(ast.unparse(target))
    return names


def refers_to(node: ast.expr, names: set[str]) -> bool:
    """Return whether an expression is one of `names`, or an attribute or item of one."""
    while True:
        if ast.unparse(node) in names:
            return True
        if not isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            return False
        node = node.value


def is_write(target: ast.expr, names: set[str]) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return any(is_write(element, names) for element in target.elts)
    if isinstance(target, ast.Attribute | ast.Subscript):
        return refers_to(target.value, names)
    return False


def writes(source: str) -> list[str]:
    """Return the statements of a module that assign to the state or write into its tensors."""
    tree = ast.parse(source)
    names = state_names(tree)
    found = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            # an alias that is changed in place changes the state
            targets = [node.target]
            if refers_to(node.target, names):
                found.append(ast.unparse(node))
                continue
        elif isinstance(node, ast.AnnAssign | ast.For | ast.NamedExpr):
            targets = [node.target]
        elif isinstance(node, ast.Call):
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            in_place = method.endswith("_") and not method.endswith("__")
            if in_place and isinstance(node.func, ast.Attribute):
                targets = [ast.Attribute(node.func.value, method)]
            targets += [
                ast.Attribute(k.value, "out") for k in node.keywords if k.arg == "out" and k.value
            ]
        if any(is_write(target, names) for target in targets):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_only_its_own_module_writes_the_state(path: Path) -> None:
    assert writes(path.read_text("utf-8")) == []


def test_the_modules_that_use_the_state_are_examined() -> None:
    users = {path.name for path in MODULES if state_names(ast.parse(path.read_text("utf-8")))}
    assert {
        "boundary_walk.py",
        "bracketing.py",
        "ddn.py",
        "feature_guided.py",
        "line_search.py",
        "norm_descent.py",
        "segments.py",
    } <= users


@pytest.mark.parametrize(
    "statement",
    [
        "search.best = x",
        "search.best[rows] = x",
        "search.best[rows], y = x, x",
        "search.num_backwards[rows] += 1",
        "search.on_boundary[rows] |= x",
        "search.best: Tensor = x",
        "del search.best",
        "search.best.copy_(x)",
        "torch.mm(x, x, out=search.best)",
        "best = search.best; best[rows] = x",
        "best, y = search.best, x; best += x",
        "other = search; other.best = x",
        "self._search.best[rows] = x",
        "new = SearchState(view); new.best = x",
        "for search.best in x: pass",
    ],
)
def test_a_write_is_found(statement: str) -> None:
    source = (
        "def f(self, search: SearchState, rows, x, y, view):\n"
        f"    self._search = search\n    {statement}\n"
    )
    assert len(writes(source)) == 1


def test_reads_and_calls_are_allowed() -> None:
    source = (
        "def f(search: SearchState, rows, x):\n"
        "    best = search.best[rows]\n    best[0] = x\n    rows = search.all_rows\n"
        "    rows = rows[x]\n    y = search.best.clone()\n    y += 1\n    search.stash(rows)\n"
    )
    assert writes(source) == []
