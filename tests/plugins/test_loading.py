"""Loading of single plugins: which are rejected, and with which messages."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pluggy
import pytest

from fsboundary.plugins import hookspecs
from fsboundary.plugins.hookspecs import hookimpl
from fsboundary.plugins.interfaces import Registration
from fsboundary.plugins.registry import info, loading
from fsboundary.plugins.registry.loading import capture_stdout


def module(**attributes: Any) -> Any:
    """Return a plugin with these attributes."""
    result = ModuleType("plugin")
    vars(result).update(attributes)
    return result


def plugin(returned: Any) -> Any:
    """Return a plugin whose one hook returns `returned`."""
    return module(register_hull_solvers=hookimpl(lambda: returned))


def reason(candidate: Any) -> str:
    """Return the reason why `candidate` is rejected; check that it is not registered."""
    manager = loading.make_manager()
    with pytest.raises(loading.PluginRejected) as caught:
        loading.load(manager, "x", lambda: candidate)
    assert manager.get_plugins() == set()
    assert not any(hook.get_hookimpls() for hook in hooks(manager))
    return str(caught.value)


def hooks(manager: pluggy.PluginManager) -> list[pluggy.HookCaller]:
    return [getattr(manager.hook, name) for name in info.HOOKS]


def good(**changes: Any) -> Registration:
    return Registration(**({"name": "n", "factory": dict, "summary": ""} | changes))


def test_kinds_and_hooks_agree() -> None:
    manager = loading.make_manager()
    assert set(vars(manager.hook)) - {"_call_history"} == set(info.HOOKS)
    assert set(info.HOOKS) == {n for n in vars(hookspecs) if n.startswith("register_")}


@pytest.mark.parametrize("collection", [list, tuple, iter])
def test_any_iterable_is_accepted(collection: Any) -> None:
    registration = good()
    found, remark = loading.load(
        loading.make_manager(), "x", lambda: plugin(collection([registration]))
    )
    assert found == [("hull_solver", registration)]
    assert remark == ""


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; wanted a list of Registration"),
        ("text", "returned str; wanted a list of Registration"),
        (good(), "returned Registration; wanted a list of Registration"),
        ([("n", dict, "")], "register_hull_solvers returned a tuple; wanted a Registration"),
        ([], "registered nothing"),
        ([good(name="")], "a Registration with name=''"),
        ([good(name=3)], "a Registration with name=3"),
        ([good(factory="pkg:Class")], "a Registration with factory='pkg:Class'"),
        ([good(summary=None)], "a Registration with summary=None"),
        ([good(api_version="1")], "a Registration with api_version='1'"),
        ([good(api_version=True)], "a Registration with api_version=True"),
        ([good(capabilities="pixels")], "a Registration with capabilities='pixels'"),
        ([good(), good(name=" ")], "a Registration with name=' '"),
    ],
)
def test_what_a_hook_returns_is_checked(returned: Any, message: str) -> None:
    assert message in reason(plugin(returned))


def test_generator_that_raises_midway() -> None:
    def broken() -> Any:
        yield good()
        raise OSError("disk on fire")

    assert reason(plugin(broken())) == "register_hull_solvers failed: OSError: disk on fire"


def test_foreign_base_exceptions_are_caught_too() -> None:
    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(
        loading.PluginRejected, match="could not be imported: Panic: index out of bounds"
    ):
        loading.load(loading.make_manager(), "x", panic)


def test_misspelt_beyond_recognition_lists_the_hooks() -> None:
    message = reason(module(setup=hookimpl(lambda: [])))
    assert message.startswith("no hook is called 'setup'; hooks are register_body_bounds, ")


def test_optional_unknown_hook_is_allowed() -> None:
    candidate = plugin([good()])
    candidate.register_future = hookimpl(optionalhook=True)(lambda: [])
    found, _ = loading.load(loading.make_manager(), "x", lambda: candidate)
    assert len(found) == 1


def test_unmarked_hook_is_rejected() -> None:
    candidate = plugin([good()])
    candidate.register_boundary_finders = lambda: []
    assert reason(candidate) == "register_boundary_finders is not marked with @fsboundary.hookimpl"


def test_wrapper_is_rejected() -> None:
    @hookimpl(wrapper=True)
    def register_hull_solvers() -> Any:
        yield

    candidate = module(register_hull_solvers=register_hull_solvers)
    assert reason(candidate) == "register_hull_solvers is a hook wrapper; wanted a plain function"


def test_same_plugin_twice_is_rejected() -> None:
    manager, candidate = loading.make_manager(), plugin([good()])
    loading.load(manager, "x", lambda: candidate)
    with pytest.raises(
        loading.PluginRejected, match=r"could not be registered: .*already registered"
    ):
        loading.load(manager, "y", lambda: candidate)
    assert manager.get_plugins() == {candidate}


def test_slow_plugin_gets_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SLOW", -1.0)
    _, remark = loading.load(loading.make_manager(), "x", lambda: plugin([good()]))
    assert remark.startswith("took ")


def test_only_the_loading_thread_is_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    parts: list[str] = []
    with capture_stdout(parts):
        kept = sys.stdout
        print("mine")
        other = threading.Thread(target=print, args=("theirs",))
        other.start()
        other.join()
    kept.write("later\n")
    kept.writelines(["last\n"])
    assert "".join(parts) == "mine\n"
    assert capsys.readouterr().out == "theirs\nlater\nlast\n"
