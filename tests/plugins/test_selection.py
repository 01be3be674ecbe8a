"""Selection by name, by instance and with options, and its error messages."""

from __future__ import annotations

import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError, PluginError
from fsboundary.plugins.interfaces import BoundaryFinder, HullSolver, ImageBoundaryFinder
from support.plugins.samples import install


class MyFinder(BoundaryFinder):
    def __init__(self, width: int = 3) -> None:
        self._width = width

    def find(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class MyImageFinder(ImageBoundaryFinder):
    def find(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_instance_passes_through() -> None:
    finder = MyFinder()
    assert plugins.create("boundary_finder", finder) is finder
    assert plugins.create("boundary_finder", finder, options={}) is finder
    images = MyImageFinder()
    assert plugins.create("boundary_finder", images, capability="pixels") is images


@pytest.mark.parametrize(
    ("plugin", "capability", "message"),
    [
        (MyFinder, None, r"got the class MyFinder; .* Fix: call it: MyFinder\(\)"),
        (object(), None, "got an object; .* instance of BoundaryFinder"),
        (MyImageFinder(), None, "got a MyImageFinder"),
        (MyFinder(), "pixels", "wanted a name .* or an instance of ImageBoundaryFinder"),
    ],
)
def test_other_objects_are_rejected(plugin: Any, capability: str | None, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plugins.create("boundary_finder", plugin, capability=capability)


def test_options_come_with_a_name_only() -> None:
    with pytest.raises(ArgumentError, match=r"Fix: pass them to MyFinder\(\.\.\.\)"):
        plugins.create("boundary_finder", MyFinder(), options={"width": 4})


def test_kind_is_checked() -> None:
    with pytest.raises(ArgumentError, match="wanted one of 'feature_extractor', 'hull_solver'"):
        plugins.create("solver", "good")  # type: ignore[arg-type]  # that it is wrong is the point


def test_unknown_name_lists_and_suggests(samples: None) -> None:
    with pytest.raises(ArgumentError) as caught:
        plugins.create("boundary_finder", "dual_newtn")
    assert caught.value.got == "'dual_newtn'"
    names = caught.value.wanted.removeprefix("a boundary finder: ").split(", ")
    assert {"closed_form", "cvxpy", "dual_newton", "good", "second"} <= set(names)
    assert names == sorted(names)
    assert "good_pixels" not in names
    assert caught.value.fix.startswith("use 'dual_newton', the closest name")
    assert "`fsboundary plugins` lists" in caught.value.fix


@pytest.mark.parametrize("name", ["fsb-test-import", "fsb_test_import_entry"])
def test_unknown_name_of_a_rejected_plugin_gives_its_reason(name: str, samples: None) -> None:
    with pytest.raises(ArgumentError, match=r"fsb-test-import 0\.2 was rejected: could not be im"):
        plugins.create("hull_solver", name)


def test_image_finders_are_apart(samples: None) -> None:
    by_name = plugins.create("boundary_finder", "good")
    assert isinstance(by_name, BoundaryFinder)
    of_images = plugins.create("boundary_finder", "good", capability="pixels")
    assert isinstance(of_images, ImageBoundaryFinder)
    with pytest.raises(ArgumentError, match="got 'good_pixels', which works on images only"):
        plugins.create("boundary_finder", "good_pixels")
    with pytest.raises(
        ArgumentError, match=r"got 'second', which lacks it; .* 'pixels': .*good_pixels"
    ):
        plugins.create("boundary_finder", "second", capability="pixels")


def test_capability_must_be_there(samples: None) -> None:
    with pytest.raises(ArgumentError, match=r"lacks it; .* 'nonlinear_head': linearised"):
        plugins.create("boundary_finder", "good", capability="nonlinear_head")
    with pytest.raises(ArgumentError, match="a hull solver with the capability 'pixels'"):
        plugins.create("hull_solver", "good", capability="pixels")


def test_options_reach_the_constructor(samples: None) -> None:
    finder = plugins.create("boundary_finder", "good", options={"strength": 2.5})
    assert (finder.strength, finder.label) == (2.5, "")


def test_bad_option_is_named(samples: None) -> None:
    with pytest.raises(ArgumentError) as caught:
        plugins.create("boundary_finder", "good", options={"strenght": 2.5})
    assert caught.value.got == "'strenght' for plugin 'good' (fsb-test-good 1.2)"
    assert caught.value.wanted == "options among strength, label"
    assert caught.value.fix == "use 'strength', the closest name"


def test_bad_option_of_a_built_in_plugin_is_named() -> None:
    with pytest.raises(ArgumentError, match="'no_such_option' for plugin 'dual_newton' "):
        plugins.create("boundary_finder", "dual_newton", options={"no_such_option": 1})


def test_missing_option_is_named(samples: None) -> None:
    with pytest.raises(ArgumentError, match=r"no 'level' for.*among level\. Fix: add 'level'"):
        plugins.create("hull_solver", "broken")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("broken", {"level": 3}, r"'broken' \(fsb-test-good 1.2\) could not be created with "
         r"options {'level': 3}: RuntimeError: no backend for level 3"),
        ("impostor", {}, r"returned a dict; wanted an instance of fsboundary\.HullSolver"),
        ("absent", {}, "could not be imported: ModuleNotFoundError: .*fsb_test_absent"),
    ],
)  # fmt: skip  # one case per line reads better
def test_factory_fails(name: str, options: dict[str, Any], message: str, samples: None) -> None:
    with pytest.raises(PluginError, match=message):
        plugins.create("hull_solver", name, options=options)
    assert isinstance(plugins.create("hull_solver", "good"), HullSolver)


def test_identify_a_plugin_made_by_name(samples: None) -> None:
    finder = plugins.create("boundary_finder", "good", options={"label": "a"})
    known = plugins.identify(finder)
    assert known == ("good", "fsb-test-good", "1.2", {"strength": 1.0, "label": "a"})


def test_identify_an_instance_of_the_user(samples: None) -> None:
    assert plugins.identify(MyFinder(7)) == ("MyFinder", "", "", {"width": 7})
    module = sys.modules[type(plugins.create("boundary_finder", "good")).__module__]
    known = plugins.identify(module.Finder(strength=3.0))
    assert known == ("Finder", "fsb-test-good", "1.2", {"strength": 3.0, "label": ""})


class Reader:
    """A plugin whose argument, option and method have the same names."""

    shared = staticmethod(len)

    def __init__(self, head: object = None, shared: int = 1, function: object = len) -> None:
        self._head, self._shared, self.function = head, shared, function

    def head(self) -> None:
        pass


def test_methods_are_not_options() -> None:
    assert plugins.identify(Reader(7)).options == {"head": 7, "shared": 1, "function": len}
    checked = 0
    for info in plugins.describe():
        # other tests of this folder register samples that cannot be created
        if info.kind and info.state == "ready" and info.distribution == "fsboundary":
            pixels = "pixels" if "pixels" in info.capabilities else None
            made = plugins.create(info.kind, info.name, capability=pixels)
            options = plugins.identify(made).options
            assert not any(inspect.ismethod(value) for value in options.values()), info.name
            checked += 1
    assert checked >= 10  # all built-in plugins


def test_identify_a_built_in_plugin() -> None:
    import fsboundary

    known = plugins.identify(plugins.create("boundary_finder", "dual_newton"))
    assert known[:3] == ("dual_newton", "fsboundary", fsboundary.__version__)


SLEEPY = """
import time
import fsboundary as fsb
CALLS = []

class Hull(fsb.HullSolver):
    def prepare(self, points): ...
    def project(self, state, queries, *, exclude=None, tolerance, max_steps): ...

@fsb.hookimpl
def register_hull_solvers():
    CALLS.append("solvers")
    time.sleep(0.2)  # so that other threads call meanwhile
    return [fsb.Registration("sleepy", Hull, "")]
"""


def test_threads_load_once(samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "fsb_test_aa_sleepy", "[fsboundary]\nx = fsb_test_aa_sleepy\n", SLEEPY)
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 8
    together = threading.Barrier(count)

    def create(_: int) -> Any:
        together.wait()
        return plugins.create("hull_solver", "sleepy")

    with ThreadPoolExecutor(count) as pool:
        made = list(pool.map(create, range(count)))
    assert len({type(solver) for solver in made}) == 1
    assert sys.modules["fsb_test_aa_sleepy"].CALLS == ["solvers"]
