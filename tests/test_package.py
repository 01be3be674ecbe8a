"""The package as a whole: what importing it does, its names, its dependencies, its wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

import fsboundary
from checks import cohesion, size, skips, trusted_base

MEGABYTE = 1_000_000


def run_python(code: str) -> str:
    """Return what `code` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each dotted name that a module under `folder` imports."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


IMPORT_ALONE = """
import sys
opened = []
def watch(event, args):
    # the interpreter itself reads the modules and lists their folders
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename") or (
        event == "open" and not str(args[0]).endswith((".py", ".pyc"))
    ):
        opened.append((event, str(args[0])))
sys.addaudithook(watch)
import fsboundary
print(opened)
print(sorted({"torch", "numpy", "pluggy", "captum", "matplotlib"} & set(sys.modules)))
print(sorted(m for m in sys.modules if m.startswith("fsboundary")))
"""

HELP_ALONE = """
import sys
from fsboundary.cli import main
sys.argv = ["fsboundary", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(sorted({"torch", "numpy", "captum", "matplotlib"} & set(sys.modules)))
"""


def test_import_loads_nothing_else_and_touches_no_file() -> None:
    files, heavy, own = run_python(IMPORT_ALONE).splitlines()
    assert files == "[]"
    assert heavy == "[]"
    assert own == "['fsboundary', 'fsboundary._version']"


def test_help_needs_no_torch() -> None:
    *shown, heavy = run_python(HELP_ALONE).splitlines()
    assert heavy == "[]"
    assert any("demo" in line for line in shown)


def test_names_resolve() -> None:
    for name in fsboundary.__all__:
        assert getattr(fsboundary, name) is not None
    assert set(fsboundary.__all__) <= set(dir(fsboundary))
    with pytest.raises(AttributeError, match="no attribute 'flip_flop'"):
        _ = fsboundary.flip_flop  # type: ignore[attr-defined]  # that it is missing is the point


def test_names_for_checkers_are_those_at_run_time(root: Path) -> None:
    tree = ast.parse((root / "fsboundary" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    static = {
        alias.name: node.module.removeprefix("fsboundary.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    lazy = dict(fsboundary._MODULE_OF) | dict.fromkeys(fsboundary._SUBMODULES, "fsboundary")
    assert static == lazy
    assert set(fsboundary.__all__) == {*lazy, "__version__"}


def test_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("fsboundary") == fsboundary.__version__


def test_captum_is_used_by_its_public_names(root: Path) -> None:
    private = [
        f"{path.name}: {name}"
        for path, name in imported_modules(root / "fsboundary")
        if name.split(".")[0] == "captum" and any(p.startswith("_") for p in name.split("."))
    ]
    assert private == []


def test_dependencies_are_those_imported(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    extra = [
        one for name in ("distributed", "pandas", "parquet", "sklearn") for one in extras[name]
    ]
    declared, optional = (
        {re.split(r"[<>=!~\[; ]", entry)[0] for entry in entries}
        for entries in (project["dependencies"], extra)
    )
    homes = importlib.metadata.packages_distributions()
    tops = {name.split(".")[0] for _, name in imported_modules(root / "fsboundary")}
    used = {
        dist.lower()
        for top in tops - set(sys.stdlib_module_names) - {"fsboundary"}
        for dist in homes[top]
    }
    assert declared <= used <= declared | optional
    assert set(extra) <= set(extras["test"])


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `pip install .` would; the build backend is already installed."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_wheel_is_small_and_holds_the_package_alone(wheel: Path, root: Path) -> None:
    print(f"{wheel.name}: {wheel.stat().st_size / MEGABYTE:.2f} MB")
    assert wheel.stat().st_size <= 5 * MEGABYTE
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if name.startswith("fsboundary/")}
    info = f"fsboundary-{fsboundary.__version__}.dist-info/"
    assert all(name.startswith(info) for name in names - inside)
    assert f"{info}licenses/LICENSE" in names
    sources = {
        path.relative_to(root).as_posix()
        for path in (root / "fsboundary").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == sources
    assert "fsboundary/py.typed" in inside
    assert any(name.endswith(".npz") for name in inside)
    assert any(name.endswith(".safetensors") for name in inside)


RUN_TIME_SHAPES = """
import sys
from jaxtyping import install_import_hook
sys.path.insert(0, {tests!r})
import checks.shapes
with install_import_hook("fsboundary", "checks.shapes.check"):
    import fsboundary.boundaries, fsboundary.regions, fsboundary.core.results, fsboundary.space
import fsboundary as fsb, torch
from torch import nn

generator = torch.Generator().manual_seed(0)
images = torch.rand(6, 1, 8, 8, generator=generator)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
space = fsb.FeatureSpace(model)
batch = space.extract(images)
flips = fsb.flip_points(space.head, batch.features, "all")
balls = fsb.guaranteed_balls(space.head, batch.features, norm="linf")
print(tuple(flips.points.shape), tuple(balls.radius.shape))
try:
    fsb.FlipPoints(**(flips.to_dict() | dict(distance=flips.distance[0])))
except Exception as error:
    print(type(error).__name__)
"""


def test_shapes_hold_at_run_time(root: Path) -> None:
    code = RUN_TIME_SHAPES.format(tests=str(root / "tests"))
    shapes, error = run_python(code).splitlines()
    assert shapes == "(6, 3, 5) (6,)"
    assert error == "TypeCheckError"


JUNIT = """<testsuites><testsuite><testcase classname="t" name="a"/>
<testcase classname="t" name="b"><skipped type="{type}" message="{message}"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("pytest.skip", "needs_chromium: not installed", 0),
        ("pytest.skip", "too slow today", 1),
        ("pytest.xfail", "needs_chromium: fails", 1),
    ],
)
def test_skip_check(kind: str, message: str, expected: int, root: Path, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(JUNIT.format(type=kind, message=message))
    assert skips.main(str(junit), str(root / ".ci" / "allowed-skips")) == expected


def test_skip_check_wants_a_reason() -> None:
    with pytest.raises(SystemExit, match="needs_luck has no reason"):
        skips.allowed("needs_luck\n")


def test_size_check() -> None:
    small = {"a.py": 10, "b.py": 20, "c.py": 500}
    assert size.failures_of(small, {"p.py": 149}) == []
    assert len(size.failures_of(small | {"d.py": 501, "e.py": 1}, {"p.py": 150})) == 2
    assert len(size.failures_of({"a.py": 150}, {})) == 1
    text = (
        'def f():\n    """One.\n\n    Examples\n    --------\n    >>> f()\n    """\n    return 1\n'
    )
    assert size.count_lines(text) == 4


def test_cohesion_check(tmp_path: Path) -> None:
    package = tmp_path / "fsboundary"
    files = {
        "__init__.py": "",
        "public.py": "from fsboundary.room import shown\n",
        "room/__init__.py": "from fsboundary.room.home import shown\n",
        "room/home.py": "from fsboundary.room import helper\n\ndef shown(): ...\n",
        "room/helper.py": "def help(): ...\n\ndef _hidden(): ...\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    known = cohesion.modules(package)
    assert set(known) == {"fsboundary", "fsboundary.public", "fsboundary.room", *(
        f"fsboundary.room.{name}" for name in ("home", "helper"))}  # fmt: skip
    of_module, of_name = cohesion.users(known)
    # the name is followed through the package that re-exports it
    assert of_module["fsboundary.room.home"] == {"fsboundary.public"}
    assert of_name["fsboundary.room.home", "shown"] == {"fsboundary.public"}
    assert of_module["fsboundary.room.helper"] == {"fsboundary.room.home"}
    assert ("fsboundary.room.home", "shown") in cohesion.exported(known)
    assert cohesion.public_names(known["fsboundary.room.helper"]) == ["help"]
    assert cohesion.rooms(package) == {"fsboundary": 2, "fsboundary/room": 2}


def test_size_of_the_trusted_base_is_stated(root: Path) -> None:
    page = (root / "docs" / "certificates.md").read_text("utf-8")
    found = re.search(r"about ([\d,]+) lines, and about ([\d,]+) with all", page)
    assert found
    stated = [int(number.replace(",", "")) for number in found.groups()]
    assert stated == pytest.approx(trusted_base.sizes(), rel=0.1)


def test_oldest_versions_are_the_promised_ones(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for_users = [entry for name in extras.keys() - {"test", "docs"} for entry in extras[name]]
    bounds = dict(entry.split(">=") for entry in [*project["dependencies"], *for_users])
    pinned = dict(
        line.split("==")
        for line in (root / "tests" / "checks" / "oldest.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    assert bounds.keys() == pinned.keys()
    for name, version in pinned.items():
        # "3.0.0" is the oldest release of ">=3"
        assert version.split(".")[: len(bounds[name].split("."))] == bounds[name].split(".")
    tox = ConfigParser(interpolation=None)
    tox.read(root / "tox.ini", "utf-8")
    # pip must not upgrade them for the tests' own dependencies
    constraint = "PIP_CONSTRAINT = {tox_root}/tests/checks/oldest.txt"
    assert tox["testenv:oldest"]["set_env"] == constraint
