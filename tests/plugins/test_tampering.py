"""Plugins of every kind that write to what they get, change the process, or end it."""

from __future__ import annotations

import contextlib
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fsboundary as fsb
from fsboundary import plugins
from fsboundary.core.errors import PluginError, PluginWarning
from fsboundary.plugins.grading import calls, extractors
from fsboundary.plugins.interfaces import Registration
from fsboundary.plugins.registry import info, loading, selection
from support.pixels.models import Linear, pictures
from support.plugins import hostile
from support.plugins.hostile import (
    BIAS,
    IMAGES,
    KINDS,
    POINTS,
    WEIGHT,
    AnyHeadFinder,
    Extractor,
    Finder,
    Given,
    ImageFinder,
    Kind,
    Solver,
    every_kind,
    honest,
    require_honest,
)


def spoil_head(head: Any) -> None:
    head.weight.mul_(3.0)
    head.bias.zero_()


def spoil_points(points: Any) -> None:
    points.take(torch.arange(len(points))).zero_()
    values, rows = points.price(torch.ones(1, points.num_features).double(), 3)
    values.zero_()
    rows.zero_()


def spoil_state(state: Any) -> None:
    for name in ("scale", "largest", "mean"):
        getattr(state.stats, name).zero_()


SPOILERS: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = [
    ("finder", "head", lambda x: spoil_head(x["head"])),
    ("finder", "features and targets", lambda x: (x["features"].zero_(), x["targets"].zero_())),
    (
        "finder of any head",
        "features and targets",
        lambda x: (x["features"].zero_(), x["targets"].zero_()),
    ),
    ("solver", "queries and exclude", lambda x: (x["queries"].zero_(), x["exclude"].fill_(-1))),
    ("solver", "points", lambda x: spoil_points(x["points"])),
    ("solver", "sizes in its state", lambda x: spoil_state(x["state"])),
    ("image finder", "images", lambda x: x["images"].zero_()),
    ("image finder", "head", lambda x: spoil_head(x["view"].head)),
    ("extractor", "images", lambda x: x["images"].zero_()),
]


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [pytest.param(KINDS[name], spoil, id=f"{name}-{what}") for name, what, spoil in SPOILERS],
)
def test_writing_to_inputs_changes_neither_the_answer_nor_the_users_objects(
    kind: Kind, spoil: Callable[[dict[str, Any]], object]
) -> None:
    given = Given()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the next test's subject
        result = kind.call(given, kind.plugin(spoil=lambda **inputs: spoil(inputs)))
    require_honest(kind, result)
    given.require_unchanged()
    # neither is a later call with the same objects
    require_honest(kind, kind.call(given, kind.plugin()))


@pytest.mark.parametrize("name", ["finder", "image finder"])
def test_a_finder_that_writes_to_its_copy_of_the_head_is_named(name: str) -> None:
    kind = KINDS[name]

    def spoil(**inputs: Any) -> None:
        head = inputs["head"] if "head" in inputs else inputs["view"].head
        head._weight.mul_(3.0)

    # what is private can be reached in Python; it is a copy nevertheless
    with pytest.warns(PluginWarning, match=f"{kind.label} wrote to its copy of the head"):
        require_honest(kind, kind.call(Given(), kind.plugin(spoil=spoil)))


def test_a_finder_with_a_normalised_copy_of_the_head_proves_nothing_false() -> None:
    class Normalising(Finder):
        def find(self, head, features, **options):
            head._weight.div_(head._weight.norm(dim=1, keepdim=True))
            return super().find(head, features, **options)

    kind, given = KINDS["finder"], Given()
    with pytest.warns(PluginWarning, match="Normalising wrote to its copy"):
        result = kind.call(given, Normalising())
    truth = honest(kind.label)
    converged = result.status == fsb.Status.CONVERGED
    near = (result.distance - truth["distance"]).abs() <= 1e-6 * truth["distance"]
    assert bool((near | ~converged).all())
    assert bool((result.lower_bound <= truth["distance"] * (1 + 1e-9)).all())
    given.require_unchanged()
    require_honest(kind, kind.call(given, Finder()))


def test_a_solver_cannot_reach_the_point_set_through_its_view() -> None:
    seen: list[Any] = []
    kind = KINDS["solver"]
    kind.call(Given(), kind.plugin(spoil=lambda points, **_: seen.append(points)))
    public = {name for name in dir(seen[0]) if not name.startswith("_")}
    assert public == {"num_features", "price", "take"}
    with pytest.raises(AttributeError):
        seen[0].extra = 1


def test_the_sides_of_a_difference_are_views_too() -> None:
    seen: list[Any] = []
    bank = fsb.FeatureBank(POINTS, torch.arange(40) % 2)
    fsb.hull_separation(
        bank, 0, 1, solver=Solver(spoil=lambda points, **_: seen.append(points.sides))
    )
    for side in seen[0]:
        assert {name for name in dir(side) if not name.startswith("_")} == {
            "num_features",
            "price",
            "take",
        }


REACHES_THE_MODEL = ["finder of any head", "image finder", "extractor"]


def model_of(kind: Kind, given: Given) -> nn.Module:
    """Return the module that a plugin of `kind` can reach."""
    return given.model.head if kind.plugin is AnyHeadFinder else given.model


def change_mode(model: nn.Module) -> None:
    model.train()


def accumulate(model: nn.Module) -> None:
    with torch.enable_grad():
        sum(p.sum() for p in model.parameters()).backward()


def freeze(model: nn.Module) -> None:
    model.requires_grad_(False)


@pytest.mark.parametrize("name", REACHES_THE_MODEL)
@pytest.mark.parametrize(
    ("spoil", "what"),
    [(change_mode, "the mode of"), (accumulate, "the gradient of"), (freeze, "requires_grad of")],
)
def test_a_model_left_changed_is_put_right_and_the_plugin_named(
    name: str, spoil: Callable[[nn.Module], None], what: str
) -> None:
    kind, given = KINDS[name], Given()
    given.model.requires_grad_(True)
    model = model_of(kind, given)
    with pytest.warns(PluginWarning, match=f"{kind.label} changed {what} .*, which was restored"):
        result = kind.call(given, kind.plugin(spoil=lambda **_: spoil(model)))
    require_honest(kind, result)
    assert not any(module.training for module in given.model.modules())
    assert all(p.requires_grad and p.grad is None for p in given.model.parameters())


@pytest.mark.parametrize("name", REACHES_THE_MODEL)
@pytest.mark.parametrize("gradient", [False, True])
def test_writing_to_a_weight_or_its_gradient_is_an_error(name: str, gradient: bool) -> None:
    kind, given = KINDS[name], Given()
    weight = given.model.head.weight
    weight.grad = torch.zeros_like(weight)

    def write(**_: object) -> None:
        with torch.no_grad():
            (weight.grad if gradient else weight).mul_(1.0)

    with pytest.raises(PluginError, match=rf"{kind.label} wrote to '(head\.)?weight' of the model"):
        kind.call(given, kind.plugin(spoil=write))


def enter(mode: Any) -> None:
    """Enter a mode and never leave it."""
    mode.__enter__()
    _entered.append(mode)


_entered: list[Any] = []

PROCESS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[Any], object]]] = {
    # name: what a plugin does, how it is read, and how the test puts it right if it must
    "torch's default dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        torch.get_default_dtype,
        torch.set_default_dtype,
    ),
    "torch's default device": (
        lambda: torch.set_default_device("meta"),
        lambda: torch.ones(1).device,
        lambda _: torch.set_default_device(None),
    ),
    "the number of torch's threads": (
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        torch.get_num_threads,
        torch.set_num_threads,
    ),
    "whether gradients are recorded": (
        lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
        torch.is_grad_enabled,
        torch.set_grad_enabled,
    ),
    "torch's inference mode": (
        lambda: enter(torch.inference_mode()),
        lambda: (torch.is_inference_mode_enabled(), torch.is_grad_enabled()),
        lambda _: _entered.pop().__exit__(None, None, None),
    ),
    "torch's autocast mode": (
        lambda: enter(torch.autocast("cpu")),
        lambda: torch.is_autocast_enabled("cpu"),
        lambda _: torch.set_autocast_enabled("cpu", False),
    ),
    "torch's deterministic mode": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's precision of products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "the flushing of denormals": (
        lambda: torch.set_flush_denormal(True),
        lambda: torch.tensor(5e-324, dtype=torch.float64).mul(1.0).item(),
        lambda _: torch.set_flush_denormal(False),
    ),
    "NumPy's handling of errors": (
        lambda: np.seterr(all="raise"),
        np.geterr,
        lambda b: np.seterr(**b),
    ),
    "torch's random generator": (
        lambda: torch.manual_seed(5),
        lambda: torch.get_rng_state().tolist(),
        lambda before: torch.set_rng_state(torch.tensor(before, dtype=torch.uint8)),
    ),
    "Python's random generator": (lambda: random.seed(5), random.getstate, random.setstate),
    "NumPy's random generator": (
        lambda: np.random.seed(5),
        lambda: repr(np.random.get_state()),
        lambda _: np.random.seed(0),
    ),
}

SEEDED = {"torch's random generator", "Python's random generator", "NumPy's random generator"}
"""What ``flip_images`` seeds for its finders, and restores itself."""


def test_every_state_is_in_the_table() -> None:
    assert PROCESS.keys() == {name for name, _, _ in calls._STATES}


@contextlib.contextmanager
def require_restored(name: str) -> Iterator[Callable[[], Any]]:
    """Yield what a plugin does to one state; require that it is undone after the block."""
    tamper, read, write = PROCESS[name]
    before = read()
    try:
        yield tamper
        assert read() == before
    finally:
        if read() != before:
            write(before)


@every_kind
@pytest.mark.parametrize("name", PROCESS)
def test_a_process_left_changed_is_put_right_and_the_plugin_named(kind: Kind, name: str) -> None:
    given = Given()
    with require_restored(name) as tamper, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = kind.call(given, kind.plugin(spoil=lambda **_: tamper()))
    require_honest(kind, result)
    if kind.plugin is ImageFinder and name in SEEDED:
        assert not caught
    else:
        [warning] = caught
        assert warning.category is PluginWarning
        assert kind.label in str(warning.message)
        assert name in str(warning.message)
        assert warning.filename == hostile.__file__  # where the public function is called


@every_kind
@pytest.mark.parametrize("name", PROCESS)
def test_a_process_left_changed_is_put_right_after_an_error(kind: Kind, name: str) -> None:
    def fail(**_: object) -> None:
        tamper()
        raise ZeroDivisionError

    given = Given()
    with require_restored(name) as tamper, pytest.raises(Exception) as caught:  # noqa: PT011  # any type: the next tests'
        kind.call(given, kind.plugin(spoil=fail))
    error = caught.value.__cause__ or caught.value
    assert isinstance(error, ZeroDivisionError)
    assert kind.label in error.__notes__[-1]
    if not (kind.plugin is ImageFinder and name in SEEDED):
        assert name in error.__notes__[-1]


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(3).tolist(), lambda: np.random.rand(3).tolist(), random.random],
    ids=["torch", "numpy", "python"],
)
def test_image_finders_draw_from_generators_seeded_for_them(draw: Callable[[], Any]) -> None:
    kind, drawn = KINDS["image finder"], []
    for _ in range(2):
        kind.call(Given(), kind.plugin(spoil=lambda **_: drawn.append(draw())))
        draw()  # the caller's own draws change nothing
    assert drawn[0] == drawn[1]


class ForeignPanic(BaseException):
    """As raised by runtimes of other languages."""


ENDINGS = [SystemExit(5), GeneratorExit(), ForeignPanic("lost"), StopIteration(3)]


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@every_kind
@pytest.mark.parametrize("error", ENDINGS, ids=lambda e: type(e).__name__)
def test_no_plugin_ends_its_host(kind: Kind, error: BaseException) -> None:
    given, name = Given(), type(error).__name__
    wanted: Any = PluginError
    if kind.plugin is Extractor and isinstance(error, Exception):
        wanted = type(error)  # the user's model may have raised it
    with pytest.raises(wanted) as caught:
        kind.call(given, kind.plugin(spoil=raiser(error)))
    if wanted is PluginError:
        assert str(caught.value).startswith(f"{kind.label} raised {name}")
        assert caught.value.__cause__ is error
    require_honest(kind, kind.call(given, kind.plugin()))


@every_kind
def test_the_users_interrupt_passes(kind: Kind) -> None:
    with pytest.raises(KeyboardInterrupt):
        kind.call(Given(), kind.plugin(spoil=raiser(KeyboardInterrupt())))


@every_kind
def test_what_a_signal_handler_of_the_host_raises_passes(kind: Kind) -> None:
    def handler(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            kind.call(Given(), kind.plugin(spoil=lambda **_: signal.raise_signal(signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("method", ["prepare", "project", "__repr__"])
def test_every_method_of_a_solver_is_guarded(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Solver, method, raiser(SystemExit(4)))
    with pytest.raises(PluginError, match="hull solver Solver raised SystemExit: 4"):
        KINDS["solver"].call(Given(), Solver())


def extract_and_describe() -> None:
    space = fsb.FeatureSpace(Linear(), extractor=Extractor())
    space.extract(IMAGES)
    space.notes()


@pytest.mark.parametrize("method", ["features", "head", "domain", "notes", "surrogate", "__repr__"])
def test_every_method_of_an_extractor_is_guarded(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = raiser(SystemExit(4))
    monkeypatch.setattr(Extractor, method, property(fail) if method == "surrogate" else fail)
    with pytest.raises(PluginError, match="feature extractor Extractor raised SystemExit: 4"):
        extract_and_describe()


def test_fitting_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extractor, "fit", raiser(SystemExit(4)))
    for surrogate in (False, True):
        monkeypatch.setattr(Extractor, "surrogate", surrogate)
        space = fsb.FeatureSpace(Linear(), extractor=Extractor())
        with pytest.raises(PluginError, match="feature extractor Extractor raised SystemExit: 4"):
            space.fit([pictures(30, 1, 4, 4)])


@pytest.mark.parametrize(
    ("method", "answer", "wanted"),
    [
        ("head", torch.eye(3), "LinearHead or None"),
        ("domain", "nonnegative", "Domain"),
        ("notes", None, "dict"),
        ("surrogate", None, "bool"),
        ("features_and_call", None, "(features, logits, call)"),
        ("features_and_call", (1, 2), "(features, logits, call)"),
    ],
)
def test_other_answers_of_an_extractor_have_their_type(
    method: str, answer: Any, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = answer if method == "surrogate" else lambda *_: answer
    monkeypatch.setattr(Extractor, method, value)
    with pytest.raises(PluginError) as caught:
        extract_and_describe()
    assert "feature extractor Extractor" in str(caught.value)
    assert str(caught.value).endswith(f"wanted {wanted}")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": torch.full((4, 10), 1e30)},
        {"positions": 10**18},
        {"positions": "many"},
        {"size": torch.ones(3, 10), "positions": 4},
        {"outputs": None},
        {"features": torch.full((4, 10), 1e30)},
    ],
    ids=["size", "positions", "text", "shape", "outputs", "features"],
)
def test_a_wrong_account_of_the_rounding_does_not_widen_the_tolerance(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def features_and_call(self, model, images, *additional):
        z, logits = self.features(model, images)
        account = {"features": z, "outputs": logits, "size": None, "positions": 1} | changes
        return z + 1e-3, logits, extractors.LayerCall(layer="", convolution=False, **account)

    monkeypatch.setattr(Extractor, "features_and_call", features_and_call)
    with pytest.raises((PluginError, fsb.HeadMismatchError)):
        KINDS["extractor"].call(Given(), Extractor())


@pytest.mark.parametrize("name", PROCESS)
def test_a_process_changed_while_loading_is_put_right_and_noted(name: str) -> None:
    def importer() -> Any:
        tamper()

        @fsb.hookimpl
        def register_hull_solvers() -> list[Registration]:
            return [Registration("n", Solver, "")]

        return SimpleNamespace(register_hull_solvers=register_hull_solvers)

    with require_restored(name) as tamper:
        found, remark = loading.load(loading.make_manager(), "x", importer)
    assert len(found) == 1
    assert remark.startswith("changed while loading, and restored: ")
    assert name in remark


@pytest.mark.parametrize("name", PROCESS)
def test_a_process_changed_by_a_factory_is_put_right_and_the_plugin_named(name: str) -> None:
    def factory() -> Solver:
        tamper()
        return Solver()

    entry = info.Entry(
        kind="hull_solver",
        registration=Registration("n", factory, ""),
        distribution="d",
        version="1",
    )
    with require_restored(name) as tamper, pytest.warns(PluginWarning) as caught:
        assert isinstance(selection._make(entry, fsb.HullSolver, {}), Solver)
    assert "plugin 'n' (d 1) changed" in str(caught[0].message)
    assert name in str(caught[0].message)


def test_a_registration_is_kept_as_it_was_when_it_was_checked() -> None:
    names = {"pixels"}

    class Sly(Registration):
        """A registration whose fields change."""

    item = Sly("n", Solver, "", capabilities=names)
    kept = loading._as_registration("register_boundary_finders", item)
    names.clear()
    assert type(kept) is Registration
    assert kept.capabilities == {"pixels"}

    class Raising(Registration):
        @property
        def api_version(self) -> int:
            raise SystemExit(2)

        @api_version.setter
        def api_version(self, value: int) -> None:
            pass

    @fsb.hookimpl
    def register_hull_solvers() -> list[Registration]:
        return [object.__new__(Raising)]

    plugin = SimpleNamespace(register_hull_solvers=register_hull_solvers)
    with pytest.raises(loading.PluginRejected, match="register_hull_solvers failed"):
        loading.load(loading.make_manager(), "x", lambda: plugin)


def test_the_built_in_plugins_get_the_real_objects_and_others_do_not() -> None:
    assert calls.is_built_in(plugins.create("hull_solver", "active_set"))
    assert not any(calls.is_built_in(kind.plugin()) for kind in KINDS.values())
    head = fsb.LinearHead(WEIGHT, BIAS)
    with calls.handed_head("x", head, own=True) as given:
        assert given is head
    with calls.handed_head("x", head, own=False) as given:
        assert given is not head
