"""Source tree of a new plugin: a package that installs, works and passes its own tests."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import final

import jinja2

from fsboundary.core.checks import check_choice
from fsboundary.core.errors import ArgumentError, DataError


@final
@dataclass(frozen=True, slots=True)
class _Kind:
    """Differences between the kinds of plugin: class name ending, hook, suite."""

    ending: str
    hook: str
    suite: str


KINDS = {
    "hull-solver": _Kind("Solver", "register_hull_solvers", "hull_solver_tests"),
    "boundary-finder": _Kind("Finder", "register_boundary_finders", "boundary_finder_tests"),
    "feature-extractor": _Kind(
        "Extractor", "register_feature_extractors", "feature_extractor_tests"
    ),
}


def write_template(name: str, kind: str, folder: Path) -> Path:
    """Write a new plugin's source tree.

    Parameters
    ----------
    name : str
        Name by which users will select it, such as ``my_solver``.
    kind : {"hull-solver", "boundary-finder", "feature-extractor"}
    folder : Path
        Parent folder.

    Returns
    -------
    Path
        The new folder, ``fsboundary-NAME`` in `folder`.

    Raises
    ------
    ArgumentError
        The name is not that of a Python module, the kind is unknown, or the folder exists.
    DataError
        The files could not be written; nothing is left.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name):
        wanted = "lower-case letters, digits and underscores, a letter first"
        raise ArgumentError(
            "name", repr(name), wanted, "choose such a name: it also names a module"
        )
    check_choice("kind", kind, KINDS)
    distribution = f"fsboundary-{name.replace('_', '-')}"
    root = folder / distribution
    if os.path.lexists(root):
        fix = "choose another name or folder"
        raise ArgumentError("name", f"{root}, which exists already", "a new folder", fix)
    chosen, package = KINDS[kind], f"fsboundary_{name}"
    stem = "".join(part.capitalize() for part in name.split("_"))
    values = {
        "name": name,
        "distribution": distribution,
        "package": package,
        "kind": kind.replace("-", " "),
        "class_name": stem if stem.endswith(chosen.ending) else stem + chosen.ending,
        "hook": chosen.hook,
        "suite": chosen.suite,
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "hooks.py",
        f"{package}/plugin.py": f"{kind}.py",
        "tests/test_conformance.py": "test_conformance.py",
    }
    source = resources.files("fsboundary.testing") / "templates"
    made = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    beside = folder / f".fsboundary-{secrets.token_hex(8)}.tmp"
    try:
        for path, template in files.items():
            text = (source / f"{template}.j2").read_text("utf-8")
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(made.from_string(text).render(values), "utf-8")
        beside.rename(root)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(
            f"{root}: cannot be written ({error.strerror}). Choose another folder"
        ) from error
    return root
