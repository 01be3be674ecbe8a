"""The packages of plugins/: their tests from wheels, and the imports that listing them causes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from packages.conftest import TREES
from support.plugins.environment import Environment

NAMES = {
    "fsboundary-foolbox",
    "fsboundary-qpsolvers",
    "fsboundary-transformers",
    "fsboundary-wavelets",
}


def test_their_own_tests_pass_from_wheels(
    environment: Environment, templates: list[Path], tmp_path: Path
) -> None:
    folders = [tree / "tests" for tree in (*TREES, *templates)]
    junit, ini = tmp_path / "junit.xml", tmp_path / "pytest.ini"
    ini.write_text("[pytest]\n")
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "error"]
    # the root as rootdir, so that the report names modules by their whole paths
    report = [f"--junitxml={junit}", "-c", str(ini), f"--rootdir={tmp_path.anchor}"]
    # from another folder, so that the wheels are tested and not the sources
    done = environment.run("-m", "pytest", *options, *report, *map(str, folders), cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = list(ElementTree.parse(junit).iter("testcase"))
    modules = [path.with_suffix("") for folder in folders for path in folder.glob("test_*.py")]
    wanted = {".".join(path.relative_to(path.anchor).parts) for path in modules}
    assert {case.get("classname") for case in cases} == wanted
    assert [case for case in cases if case.find("skipped") is not None] == []


LISTED = """
import json, sys
from fsboundary import plugins
found = [[i.distribution, i.kind, i.name, i.state, i.summary] for i in plugins.describe()]
heavy = sorted({"qpsolvers", "foolbox", "pywt", "transformers", "sklearn"} & set(sys.modules))
print(json.dumps([found, heavy]))
"""


def test_listing_them_imports_none_of_their_dependencies(
    environment: Environment, templates: list[Path]
) -> None:
    done = environment.run("-W", "error", "-c", LISTED)
    assert done.returncode == 0, done.stderr
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    installed = [row for row in found if row[0] != "fsboundary"]
    assert {row[0] for row in installed} == NAMES | {tree.name for tree in templates}
    assert all(row[3] == "ready" and row[4] for row in installed)


def test_each_is_a_separate_distribution() -> None:
    assert {tree.name for tree in TREES} == NAMES
    for tree in TREES:
        project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["name"] == tree.name
        assert project["version"]
        assert project["entry-points"]["fsboundary"]
        assert "When to use it" in (tree / "README.md").read_text("utf-8")
        [suite] = tree.glob("tests/test_conformance.py")
        assert "_tests(" in suite.read_text("utf-8")
