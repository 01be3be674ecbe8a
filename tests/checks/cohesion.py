"""Cohesion of the package, with its limits: python tests/checks/cohesion.py.

A helper that only one module imports usually belongs in that module, and one algorithm in one
file. The figures count imports between the modules of ``fsboundary``, wherever they stand in a
file. A package's ``__init__`` is neither counted nor an importer, because re-exporting a name is
not using it; a module or name that is re-exported serves users and is never counted as a helper.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONE_IMPORTER = 0.15  # share of the modules; libraries of this kind have 2 to 19 %
ROOM = 10  # entries of one package, without __init__
FLOORS = "fsboundary"  # its entries are the floors, which docs/design.md lists: no limit


def modules(package: Path) -> dict[str, Path]:
    """Return the modules under `package` by their dotted names."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path) -> list[tuple[str, str]]:
    """Return what `path` imports as pairs of a module and a name, "" for the module itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return found


def origin(module: str, name: str, known: dict[str, Path]) -> tuple[str, str]:
    """Follow a name through the packages that re-export it to the module that defines it."""
    if f"{module}.{name}" in known:
        return f"{module}.{name}", ""
    path = known.get(module)
    if path is not None and path.name == "__init__.py":
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in known and node.module != module:
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return origin(node.module, alias.name, known)
    return module, name


def users(known: dict[str, Path]) -> tuple[dict[str, set[str]], dict[tuple[str, str], set[str]]]:
    """Return who imports each module, and who imports each of its names."""
    of_module: dict[str, set[str]] = defaultdict(set)
    of_name: dict[tuple[str, str], set[str]] = defaultdict(set)
    for importer, path in known.items():
        if path.name == "__init__.py":
            continue
        for module, name in imported_names(path):
            home, name = origin(module, name, known)
            if home in known and home != importer:
                of_module[home].add(importer)
                of_name[home, name].add(importer)
    return of_module, of_name


def exported(known: dict[str, Path]) -> set[tuple[str, str]]:
    """Return the modules and names that some package re-exports."""
    found = set()
    for path in known.values():
        if path.name == "__init__.py":
            found |= {origin(module, name, known) for module, name in imported_names(path)}
    return found


def public_names(path: Path) -> list[str]:
    """Return the functions and classes that a module defines for others."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text("utf-8")).body
    return [n.name for n in body if isinstance(n, kinds) and not n.name.startswith("_")]


def rooms(package: Path) -> dict[str, int]:
    """Return the number of modules and packages directly in each package."""
    found = Counter()
    for init in sorted(package.rglob("__init__.py")):
        room = init.parent
        entries = [p for p in room.glob("*.py") if p != init]
        entries += [p.parent for p in room.glob("*/__init__.py")]
        found[room.relative_to(package.parent).as_posix()] = len(entries)
    return dict(found)


def main() -> int:
    """Print the figures, the modules with one importer, and every broken limit."""
    package = ROOT / "fsboundary"
    known = modules(package)
    of_module, of_name = users(known)
    counted = [name for name, path in known.items() if path.name != "__init__.py"]
    public = exported(known)
    homes = {module for module, _ in public}
    alone = [name for name in counted if len(of_module[name]) == 1 and name not in homes]
    names = [(m, n) for m in counted for n in public_names(known[m])]
    single = [pair for pair in names if len(of_name[pair]) == 1 and pair not in public]
    for name in alone:
        print(f"{name}: only {next(iter(of_module[name]))}")
    share = len(alone) / len(counted)
    print(f"{len(counted)} modules, {len(alone)} with exactly one importer: {share:.0%}")
    print(f"{len(names)} public names, {len(single)} with one user: {len(single) / len(names):.0%}")
    sizes = rooms(package)
    largest = max(sizes, key=sizes.__getitem__)
    print(f"{len(sizes)} packages, the largest with {sizes[largest]} entries: {largest}")
    failures = [
        f"{room}: {n} entries, limit {ROOM}"
        for room, n in sizes.items()
        if n > ROOM and room != FLOORS
    ]
    if share > ONE_IMPORTER:
        failures.append(f"modules with one importer: {share:.1%}, limit {ONE_IMPORTER:.0%}")
    print("\n".join(failures) if failures else "cohesion: ok")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
