"""Ten installed plugins, most of them broken: each is reported, and none breaks the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import plugins
from fsboundary.core.errors import ArgumentError, PluginError
from fsboundary.plugins.registry import loading
from support.plugins.samples import SAMPLES, install

Run = Callable[..., subprocess.CompletedProcess[str]]

REASONS = {
    "fsb-test-exit": "could not be imported: SystemExit: 3",
    "fsb-test-hook": (
        "register_boundary_finders failed: RuntimeError: the licence server did not answer"
    ),
    "fsb-test-import": "could not be imported: ImportError: libsolver.so: not found",
    "fsb-test-misspelt": (
        "no hook is called 'register_boundary_finder'; did you mean 'register_boundary_finders'?"
    ),
}


@pytest.fixture
def listed(samples: None) -> list[plugins.PluginInfo]:
    return plugins.describe()


def one(listed: list[plugins.PluginInfo], **fields: str) -> plugins.PluginInfo:
    [found] = [i for i in listed if all(getattr(i, k) == v for k, v in fields.items())]
    return found


@pytest.mark.parametrize("name", REASONS)
def test_broken_plugin_is_rejected_whole_with_its_reason(
    name: str, listed: list[plugins.PluginInfo]
) -> None:
    info = one(listed, distribution=name)
    assert info.state == "rejected"
    assert info.reason == REASONS[name]
    assert info.version == SAMPLES[name].version
    assert info.name == f"{name.replace('-', '_')}_entry"
    assert info.kind == ""


def test_hook_with_an_argument_is_rejected(listed: list[plugins.PluginInfo]) -> None:
    info = one(listed, distribution="fsb-test-signature")
    assert info.state == "rejected"
    assert "register_hull_solvers" in info.reason
    assert "config" in info.reason
    assert "\n" not in info.reason


def test_other_plugins_work(listed: list[plugins.PluginInfo]) -> None:
    ready = {i.name for i in listed if i.state == "ready" and i.kind == "boundary_finder"}
    assert {"good", "good_pixels", "liar", "present", "noisy", "second"} <= ready
    assert {"dual_newton", "closed_form", "cvxpy"} <= ready
    for name in ("good", "liar", "present", "noisy", "second"):
        plugins.create("boundary_finder", name)
    assert type(plugins.create("boundary_finder", "dual_newton")).__name__ == "DualNewton"


def test_name_clash_keeps_the_built_in_and_the_first(
    listed: list[plugins.PluginInfo],
) -> None:
    own = [i for i in listed if i.distribution == "fsb-test-second"]
    states = {(i.name, i.state): i.reason for i in own}
    assert states == {
        ("dual_newton", "rejected"): (
            "name clash: fsb-test-second registers a boundary_finder called 'dual_newton', "
            "but fsboundary has that name"
        ),
        ("good", "rejected"): (
            "name clash: fsb-test-second registers a boundary_finder called 'good', "
            "but fsb-test-good has that name"
        ),
        ("second", "ready"): "",
        ("second", "rejected"): "fsb-test-second registers the name twice",
    }
    assert type(plugins.create("boundary_finder", "good")).__module__ == "fsb_test_good"


def test_newer_api_rejects_the_registration(listed: list[plugins.PluginInfo]) -> None:
    future = one(listed, name="future")
    assert future.state == "rejected"
    assert future.reason == "needs a newer API: 99, this fsboundary has 1"
    assert one(listed, name="present").state == "ready"
    with pytest.raises(ArgumentError, match=r"'future' of fsb-test-newer 9\.0 was rejected: needs"):
        plugins.create("boundary_finder", "future")


def test_printing_plugin_works_and_is_noted(
    listed: list[plugins.PluginInfo], capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = one(listed, name="noisy")
    assert noisy.state == "ready"
    assert noisy.reason == "printed while loading: 'hello from the plugin'"
    assert "hello from the plugin" not in capsys.readouterr().out


def test_order_does_not_depend_on_the_first_request(samples: None) -> None:
    plugins.create("boundary_finder", "second")
    requested_first = plugins.describe()
    plugins.reset()
    listed_first = plugins.describe()
    # remarks may differ: what a module prints at import, it prints once in a process
    assert [replace(i, reason="") for i in requested_first] == [
        replace(i, reason="") for i in listed_first
    ]


def test_command_prints_only_json(run: Run) -> None:
    done = run("-m", "fsboundary", "plugins", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    rejected = {row["distribution"]: row["reason"] for row in rows if row["state"] == "rejected"}
    assert REASONS.items() <= rejected.items()
    assert done.stderr == "hello from C\n"  # written to the file descriptor, past Python


def test_command_prints_a_table(run: Run) -> None:
    done = run("-m", "fsboundary", "plugins")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    heads = ["name", "kind", "distribution", "version", "state", "summary", "or", "reason"]
    assert head.split() == heads
    for name, reason in REASONS.items():
        assert any(name in line and "rejected" in line and reason in line for line in lines)


IMPORT_ONLY = """
import sys
import fsboundary
import fsboundary.plugins
print([m for m in sys.modules if m.startswith(("fsb_test_", "fsboundary.builtin"))])
"""


def test_import_loads_no_plugin(run: Run) -> None:
    done = run("-c", IMPORT_ONLY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


GRADED = """
import fsboundary as fsb, torch
head = fsb.LinearHead(torch.eye(2), torch.zeros(2))
z = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
for finder in ("good", "liar"):
    flips = fsb.flip_points(head, z, "nearest", finder=finder)
    print(*(f"{x:.6f}" for x in flips.distance.flatten().tolist()))
    print(*(fsb.Status(x).name for x in flips.status.flatten().tolist()))
    print(bool((flips.lower_bound.flatten() <= (z[:, 0] - z[:, 1]).abs() / 2**0.5 + 1e-9).all()))
"""


def test_liar_and_good_plugin_are_graded(run: Run) -> None:
    done = run("-c", GRADED)
    assert done.returncode == 0, done.stderr
    good, good_status, good_bound, liar, liar_status, liar_bound = done.stdout.splitlines()
    assert good == "0.707107 2.828427"
    assert good_status == "CONVERGED CONVERGED"
    assert liar == "nan nan"
    assert liar_status == "INACCURATE INACCURATE"
    assert good_bound == liar_bound == "True"


def test_nothing_is_imported_for_a_built_in_name(samples: None) -> None:
    plugins.create("boundary_finder", "dual_newton")
    assert not any(name.startswith("fsb_test_") for name in sys.modules)


SLOW = """
import time
import fsboundary as fsb

time.sleep(0.3)

@fsb.hookimpl
def register_hull_solvers():
    return [fsb.Registration("slow", fsb.plugins.lazy("fsb_test_slower:Solver"), "")]
"""


@pytest.fixture
def slow(tmp_path: Path, samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a plugin that is slow to import, as is the module of its solver."""
    install(tmp_path, "fsb_test_slow", "[fsboundary]\nslow = fsb_test_slow\n", SLOW)
    (tmp_path / "fsb_test_slower.py").write_text("import time\ntime.sleep(0.2)\nSolver = dict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(loading, "SLOW", 0.25)


def test_slow_plugin_gets_a_remark_and_is_imported_only_on_request(slow: None) -> None:
    plugins.create("boundary_finder", "dual_newton")
    plugins.create("hull_solver", "active_set")
    assert "fsb_test_slow" not in sys.modules
    info = one(plugins.describe(), name="slow")
    assert info.state == "ready"
    assert info.reason.startswith("took 0.")
    assert "fsb_test_slower" not in sys.modules
    # its module is imported when a solver is created; this one creates something else
    with pytest.raises(PluginError, match="returned a dict"):
        plugins.create("hull_solver", "slow")
    assert "fsb_test_slower" in sys.modules


def test_a_solver_at_the_address_of_a_freed_one_is_prepared_itself() -> None:
    """The default repr contains the address, which tells living solvers apart only."""
    points = fsb.FeatureBank(torch.eye(3, dtype=torch.float64))
    query = torch.full((1, 3), 2.0, dtype=torch.float64)
    prepared: list[int] = []

    class Counting(fsb.HullSolver):
        def prepare(self, points: object) -> object:
            prepared.append(id(self))
            return points

        def project(self, state: Any, queries: Tensor, **options: Any) -> Any:
            return None

    for _ in range(20):
        with pytest.raises(fsb.PluginError):
            fsb.hull_projection(points, query, solver=Counting())
    assert len(prepared) == len(set(prepared)) == 20
