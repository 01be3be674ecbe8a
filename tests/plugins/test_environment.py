"""Discovery of plugins: FSBOUNDARY_PLUGINS, and unreadable metadata."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsboundary import plugins
from fsboundary.plugins.registry import discovery
from support.plugins.samples import install


def reasons() -> dict[str, str]:
    return {i.name: i.reason for i in plugins.describe() if i.state == "rejected"}


def ready() -> set[str]:
    return {i.distribution for i in plugins.describe() if i.state == "ready"}


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith("fsb_test_")}


def test_empty_means_built_in_only(samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, "")
    assert ready() == {"fsboundary"}
    assert imported() == set()
    assert reasons()["fsb_test_good_entry"] == "not listed in FSBOUNDARY_PLUGINS"


@pytest.mark.parametrize(
    "value", ["fsb-test-good", "FSB_Test.good", " fsboundary, fsb_test_good_entry ,"]
)
def test_list_means_these_only(value: str, samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, value)
    assert ready() == {"fsboundary", "fsb-test-good"}
    assert imported() == {"fsb_test_good"}
    assert "fsboundary" not in reasons()


def test_listed_but_not_installed(samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, "fsb-test-good,no-such-plugin")
    assert ready() == {"fsboundary", "fsb-test-good"}
    assert reasons()["no-such-plugin"] == "not installed, but listed in FSBOUNDARY_PLUGINS"


def test_name_is_free_when_its_holder_is_not_listed(
    samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(discovery.VARIABLE, "fsb-test-second")
    assert plugins.identify(plugins.create("boundary_finder", "good"))[1] == "fsb-test-second"


def test_only_what_is_needed_is_imported(samples: None) -> None:
    plugins.create("boundary_finder", "good")
    assert imported() == {
        "fsb_test_good"
    }  # fsb-test-exit comes before it, and is not left imported
    plugins.create("boundary_finder", "liar")
    assert imported() == {"fsb_test_good", "fsb_test_hook", "fsb_test_liar"}


@pytest.mark.parametrize("text", ["[fsboundary]\nnot a pair\n", "[fsboundary]\nx = 5 : no\n"])
def test_unreadable_entry_points_break_no_other_plugin(
    text: str, samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "fsb_test_malformed", text)
    monkeypatch.syspath_prepend(str(tmp_path))
    [info] = [i for i in plugins.describe() if i.distribution == "fsb_test_malformed"]
    assert info.state == "rejected"
    assert info.reason
    assert {"fsboundary", "fsb-test-good"} <= ready()


INTERRUPTED = """
import fsboundary as fsb, pathlib, sys
mark = pathlib.Path(__file__).with_suffix(".mark")
if not mark.exists():
    mark.touch()
    raise KeyboardInterrupt

@fsb.hookimpl
def register_hull_solvers():
    return [fsb.Registration("patient", dict, "")]
"""


def test_interrupted_loading_is_tried_again(
    samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "[fsboundary]\npatient = fsb_test_aa_patient\n"
    install(tmp_path, "fsb_test_aa_patient", entry, INTERRUPTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        plugins.describe()
    assert "patient" in {i.name for i in plugins.describe() if i.state == "ready"}


CURIOUS = """
import fsboundary as fsb
SEEN = {i.name for i in fsb.plugins.describe()}

@fsb.hookimpl
def register_hull_solvers():
    return [fsb.Registration("curious", dict, "")]
"""


def test_plugin_may_use_the_registry_while_it_loads(
    samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "[fsboundary]\ncurious = fsb_test_aa_curious\n"
    install(tmp_path, "fsb_test_aa_curious", entry, CURIOUS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [i.name for i in plugins.describe()].count("curious") == 1
    assert "dual_newton" in sys.modules["fsb_test_aa_curious"].SEEN
